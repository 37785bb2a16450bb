"""A gateway of several workers before an upstream that is held: which worker serves a client, and what the board says.

The board is the running gateway's own, through a worker's descriptor of it: what is tested is only read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from edgeq.board.layout import Board
from edgeq.board.reading import Reading, read
from tests.support.bench import Bench, bench, head
from tests.support.clients import server_pid
from tests.support.gateway import Settings
from tests.support.raw_client import RawClient
from tests.support.scripted_upstream import SeenRequest, UpstreamConnection, answer
from tests.support.supervised import wait_for

UPSTREAM = "upstream/u"


class Machine:
    """Clients of chosen workers; the upstream answers one request for each `let_go`."""

    def __init__(self, running: Bench, board: Board) -> None:
        self.running = running
        self.gateway = running.gateway
        self.upstream = running.upstream
        self.board = board
        self.clients: list[RawClient] = []
        self.open = False
        """Requests are answered at once."""
        self.at_work = 0
        self.most_at_work = 0
        self.paths: list[bytes] = []
        """Of the requests that were held, in order."""
        self._changed = threading.Condition()
        self._let_go = 0
        running.handle(self._handle)

    def _handle(self, connection: UpstreamConnection, request: SeenRequest) -> None:
        with self._changed:
            self.paths.append(request.target)
            self.at_work += 1
            self.most_at_work = max(self.most_at_work, self.at_work)
            self._changed.wait_for(lambda: self.open or self._let_go > 0 or self.upstream.stopping.is_set(), 600)
            if not self.open:
                self._let_go -= 1
            self.at_work -= 1
        connection.send(answer(request.target))

    def let_go(self, count: int = 1) -> None:
        """Have so many requests answered, of those that are there or come."""
        with self._changed:
            self._let_go += count
            self._changed.notify_all()

    def let_all_go(self) -> None:
        with self._changed:
            self.open = True
            self._changed.notify_all()

    def pid(self, slot: int) -> int:
        return wait_for(f"a worker in slot {slot}", lambda: self.board.row(slot).pid)

    def client_of(self, slot: int) -> RawClient:
        """A connection that this worker serves."""
        found: list[RawClient] = []

        def one_more() -> bool:
            client = self.running.connect(timeout_s=60)
            pid = wait_for("who serves it", lambda: server_pid(client.socket, self.gateway.workers))
            if pid == self.pid(slot):
                found.append(client)
                return True
            client.close()
            return False

        wait_for(f"a connection to worker {slot}", one_more)
        self.clients.append(found[0])
        return found[0]

    def ask(self, slot: int, path: str = "/", *fields: str) -> RawClient:
        """A request through this worker."""
        client = self.client_of(slot)
        client.send(head("GET", path, *fields))
        return client

    def wait_seen(self, count: int) -> None:
        """Until so many requests have come to the upstream."""
        wait_for(f"{count} requests at the upstream", lambda: len(self.paths) >= count)

    def reading(self, name: str = UPSTREAM) -> Reading:
        return read(self.board, self.board.resource_index(name), False)

    def wait_queued(self, count: int, name: str = UPSTREAM) -> None:
        wait_for(f"{count} that wait", lambda: self.reading(name).queued == count)

    def kill(self, slot: int) -> None:
        """kill -9, and wait until the worker's successor serves."""
        pid = self.pid(slot)
        os.kill(pid, signal.SIGKILL)
        wait_for("its successor", lambda: self.board.row(slot).pid not in (0, pid))


def _board_of(pid: int) -> Board:
    """The board of a running worker."""
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if "edgeq-board" in os.readlink(fd):
                return Board.attach(os.open(fd, os.O_RDWR))
    raise LookupError(f"process {pid} has no board")


@contextlib.contextmanager
def machine(settings: Settings) -> Iterator[Machine]:
    """A gateway, all of whose workers serve. Clients may be silent until all of them are connected."""
    with bench(dataclasses.replace(settings, head_s=300)) as running:
        running.gateway.wait_event("serving")
        board = _board_of(running.gateway.workers[0])
        made = Machine(running, board)
        try:
            yield made
        finally:
            made.let_all_go()
            for client in made.clients:
                client.close()
            board.close()
