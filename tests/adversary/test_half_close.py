"""A client's FIN at every moment of its requests: what it asked for is answered, then nothing is held for it."""

from __future__ import annotations

from tests.support.fake_transport import World

GET = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_fin_within_the_answer_ends_the_connection_after_it() -> None:
    """A client that has half-closed while its answer was on the way is not kept: it can never ask again."""
    world = World()
    client, server = world.request(GET % 1)
    server.data(OK[:-1])
    client.eof()
    assert not client.closing
    server.data(OK[-1:])
    world.loop.run()
    assert client.take().endswith(b"ok")
    assert client.lost
    world.check_settled()


def test_fin_within_the_first_of_two_answers_leaves_the_second_its_turn() -> None:
    """Pipelined requests are all answered before a half-closed connection ends."""
    world = World()
    client, server = world.request(GET % 1 + GET % 2)
    server.data(OK[:-1])
    client.eof()
    server.data(OK[-1:])
    world.loop.run()
    assert b"GET /2" in server.take()
    server.data(OK)
    world.loop.run()
    assert client.take().count(b"ok") == 2
    assert client.lost
    world.check_settled()


def test_fin_between_two_answers_leaves_the_second_its_turn() -> None:
    """A FIN that arrives in the moment between an answer and the next pipelined request does not cost that request."""
    world = World()
    client, server = world.request(GET % 1 + GET % 2)
    server.data(OK)
    client.eof()  # before the loop has turned to the second request
    world.loop.run()
    server.data(OK)
    world.loop.run()
    assert client.take().count(b"ok") == 2
    assert client.lost
    world.check_settled()


def test_fin_between_an_answer_and_half_a_request_ends_the_connection() -> None:
    """What is left of a request that never comes whole is thrown away with the connection."""
    world = World()
    client, server = world.request(GET % 1 + b"GET /2 HT")
    server.data(OK)
    client.eof()
    world.loop.run()
    assert client.take().count(b"ok") == 1
    assert client.lost
    world.check_settled()


def test_a_cut_answer_does_not_destroy_the_one_before_it() -> None:
    """While a client still sends, closing would reset the connection, and with it a complete answer on its way."""
    world = World()
    client, server = world.request(GET % 1 + GET % 2 + GET % 3)
    server.data(OK)
    world.loop.run()
    server.data(OK[:-1])
    server.eof()
    world.loop.run()
    assert client.fin_sent
    assert not client.closing
    client.data(GET % 4)  # thrown away: its answer could not be told from the rest of the cut one
    client.eof()
    world.loop.run()
    assert client.lost
    assert not client.was_reset
    assert client.take().count(b"HTTP/1.1 200 OK") == 2
    world.check_settled()
