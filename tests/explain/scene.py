"""A gateway with steady traffic on several upstreams, of which a test changes one thing, and asks what is wrong."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeq.explain.facts import whole_of
from tests.support import kernel
from tests.support.gateway import Gateway
from tests.support.scripted_upstream import SeenRequest, UpstreamConnection, answer
from tests.support.supervised import connect, read_all, wait_for

TIMEOUT_S = 30.0
"""For a verdict, on a machine of any speed."""
_PACE_S = 0.03
_LINGERS_S = 1.0
"""Two looks of the supervisor, and two reports of a worker."""


class Behaviour:
    """What upstreams do with a path: how long they take, and the status."""

    def __init__(self) -> None:
        self.delays_s: dict[bytes, float] = {}
        self.statuses: dict[bytes, bytes] = {}

    def act(self, connection: UpstreamConnection, request: SeenRequest) -> None:
        """A handler of a scripted upstream."""
        path = request.target
        kernel.select_pause(self.delays_s.get(path, 0.005))
        connection.send(answer(b"", self.statuses.get(path, b"200 OK")))


class Clients:
    """Threads that ask one after the other, each with a pause after each answer, whatever that is."""

    def __init__(self) -> None:
        self._threads: list[tuple[threading.Thread, threading.Event]] = []

    def add(self, address: tuple[str, int], path: str, count: int, *fields: str, pace_s: float = _PACE_S) -> None:
        """More of them."""
        text = "\r\n".join([f"GET {path} HTTP/1.1", "Host: a", *fields, "", ""]).encode()
        for _ in range(count):
            stop = threading.Event()
            thread = threading.Thread(target=_ask, args=(address, text, pace_s, stop), daemon=True)
            self._threads.append((thread, stop))
            thread.start()

    def end(self) -> None:
        """All of them."""
        for _, stop in self._threads:
            stop.set()
        for thread, _ in self._threads:
            thread.join(20)


def _ask(address: tuple[str, int], text: bytes, pace_s: float, stop: threading.Event) -> None:
    while not stop.is_set():
        with contextlib.suppress(OSError), socket.create_connection(address, timeout=20) as sock:
            while not stop.wait(pace_s):
                sock.sendall(text)
                head = b""
                while b"\r\n\r\n" not in head:
                    if not (more := sock.recv(65536)):
                        raise ConnectionError
                    head += more
                fields, _, body = head.partition(b"\r\n\r\n")
                length = int(fields.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                while len(body) < length and (more := sock.recv(65536)):
                    body += more


class Scene:
    """A running gateway and its admin socket."""

    def __init__(self, gateway: Gateway, admin: Path) -> None:
        self.gateway = gateway
        self.admin = admin

    def tell(self, line: str) -> str:
        """The answer to a command of the admin socket."""
        with connect(f"unix:{self.admin}") as sock:
            sock.sendall(f"{line}\n".encode())
            return read_all(sock).decode()

    def explain(self, what: str = "") -> dict[str, Any]:
        """The answer as JSON; with `error` if there is none."""
        text = self.tell(f"explain {what} json")
        found = json.loads(text) if text.startswith("{") else {"error": text}
        assert isinstance(found, dict)
        return found

    def says(self, cause: str, resource: str = "", meanwhile: Callable[[], object] = lambda: None) -> dict[str, Any]:
        """Wait until it names this cause at this resource (empty: at any) first of all, and stays with no other one
        there; `meanwhile()` is done on each look. On a busy machine one report of a worker may come before another one,
        and a cause show a look later than it should; one that is told for longer than that is wrong."""
        last: dict[str, Any] = {}
        since_s: dict[str, float] = {}
        others: set[str] = set()

        def look() -> bool:
            meanwhile()
            last.clear()
            last.update(self.explain())
            if last["cause"] == cause and resource in ("", last["resource"]):
                return True
            name = last["cause"] if resource and whole_of(last["resource"] or "") == whole_of(resource) else None
            now_s = time.monotonic()
            for gone in [one for one in since_s if one != name]:
                del since_s[gone]
            if name and now_s - since_s.setdefault(name, now_s) > _LINGERS_S:
                others.add(json.dumps(last, indent=1))
            return False

        try:
            wait_for(cause, look, TIMEOUT_S)
        except AssertionError as error:
            error.add_note(json.dumps(last, indent=1))
            raise
        assert not others, "another cause was named first: " + "".join(others)
        return last

    def is_calm(self) -> None:
        """Wait until nothing is saturated."""
        last: dict[str, Any] = {}

        def look() -> bool:
            last.clear()
            last.update(self.explain())
            return last["cause"] is None

        try:
            wait_for("calm", look, TIMEOUT_S)
        except AssertionError as error:
            error.add_note(json.dumps(last, indent=1))
            raise


@contextlib.contextmanager
def burst(address: tuple[str, int], count: int) -> Iterator[Sequence[socket.socket]]:
    """Connections that are begun at once."""
    clients = [socket.socket() for _ in range(count)]
    try:
        for client in clients:
            client.setblocking(False)
            client.connect_ex(address)
        yield clients
    finally:
        for client in clients:
            client.close()


def overflow(gateway: Gateway, address: tuple[str, int]) -> None:
    """More connections at once than may wait, while the workers stand still for a moment."""
    with contextlib.ExitStack() as still:
        for pid in gateway.workers:
            still.enter_context(kernel.stopped(pid))
        with burst(address, 8):
            pass


def elapsed(seconds: float) -> None:
    """Wait until so much time is over: what is told as "before" must have been."""
    end_s = time.monotonic() + seconds
    kernel.wait_until(lambda: time.monotonic() >= end_s, seconds + 10, "time")
