"""A worker's App for tests of the processes around it: answers each line with who it is.

The answer is "SLOT PID GENERATION WORKERS NODE UID LOGS_REOPENED TICKETS", the last a hash of the secret behind session
tickets. `forward.node` of the configuration steers it: "unborn" cannot be constructed, "stubborn" cannot be applied,
"crash" dies before it is ready. A line "hold" gets its answer only while draining, so that a test has a request in
flight. A line "hang" and the loop turns no more. "use COUNT KEY" notes so many requests for a model; "find SECRET" is
answered with "SLOT VERDICT TENANT SPENT", the last what acme has spent today.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from edgeq.board.layout import Board
from edgeq.config.schema import Config
from edgeq.llm.accounts import AccountsHolder
from edgeq.llm.message import Usage
from edgeq.supervisor.messages import AccountsTold, Message, SeenConnection, UsageTaken


class FakeApp:
    """Accepts on all sockets, one line in, one line out, as often as the client likes."""

    def __init__(
        self,
        slot: int,
        workers: int,
        generation: int,
        config: Config,
        ticket_secret: bytes,
        sockets: dict[str, socket.socket],
        board: Board,
    ) -> None:
        if config.forward.node == "unborn":
            raise RuntimeError("the configuration says unborn")
        if config.forward.node == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        self.slot = slot
        self.workers = workers
        self.generation = generation
        self.config = config
        self.board = board
        self.row = board.row(slot)
        self.sockets = dict(sockets)
        self.open: dict[socket.socket, int] = {}
        self.held: list[socket.socket] = []
        self.requests = 0
        self.log_reopened = 0
        self.ticket_secret = ticket_secret
        self.on_done: Callable[[], None] | None = None
        self.accounts = AccountsHolder()
        if config.accounts is not None:
            self.accounts.configure(float(config.accounts.flush), config.accounts.log_prompts)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        for address, sock in self.sockets.items():
            loop.add_reader(sock.fileno(), self._accept, address, sock)
        if self.config.accounts is not None:
            self._tick()

    def apply(
        self, generation: int, workers: int, config: Config, sockets: dict[str, socket.socket], rereads: bool
    ) -> None:
        if config.forward.node == "stubborn" and self.slot == 0:
            raise RuntimeError("the configuration says stubborn")
        self.generation, self.workers, self.config = generation, workers, config
        self.sockets.update(sockets)
        for address, sock in sockets.items():
            self.loop.add_reader(sock.fileno(), self._accept, address, sock)

    def speak_by(self, send: Callable[[Message], None]) -> None:
        self.accounts.send = send

    def hear(self, message: AccountsTold | UsageTaken) -> None:
        self.accounts.hear(message)

    def _tick(self) -> None:
        self.accounts.tick(time.monotonic(), time.time())
        self.loop.call_later(0.01, self._tick)

    def _use(self, count: int, key_id: str) -> None:
        """As requests for a model would, each for a millionth."""
        for _ in range(count):
            self.accounts.usage.record("acme", key_id, "m", "p/m", Usage(10, 2), 1, 200, 0.1, 0.05)

    def renew_tickets(self, secret: bytes) -> None:
        self.ticket_secret = secret

    def retire_listener(self, address: str, on_empty: Callable[[], None]) -> None:
        sock = self.sockets.pop(address, None)
        if sock is not None:
            while self._accept(address, sock):
                pass
            self.loop.remove_reader(sock.fileno())
            sock.close()
        on_empty()

    def empty_queue(self, address: str, sock: socket.socket, on_empty: Callable[[], None]) -> None:
        while self._accept(address, sock):
            pass
        sock.close()
        on_empty()

    def drain(self, timeout_s: float, on_done: Callable[[], None]) -> None:
        self.on_done = on_done
        for sock in self.held:
            self._answer(sock)
        self.loop.call_later(timeout_s, self._finish)
        self._finish_if_empty()

    def reopen_logs(self) -> None:
        self.log_reopened += 1

    def stats(self) -> dict[str, int | float]:
        return {"connections": len(self.open), "requests": self.requests, "in_flight": len(self.held)}

    def report(self) -> Iterator[dict[str, Any]]:
        yield {"refusals": {"client_gone": {"listener/fake": self.requests}}}

    def connections(self, count: int) -> tuple[SeenConnection, ...]:
        return ()

    def close(self) -> None:
        for sock in tuple(self.open):
            self._close(sock)
        self.accounts.finish()

    def _accept(self, address: str, listener: socket.socket) -> bool:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return False
        sock.setblocking(False)
        self.open[sock] = self.board.listener_index(address)
        self.row.add_connection(self.open[sock])
        self.loop.add_reader(sock.fileno(), self._read, sock)
        return True

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(1024)
        except OSError:
            data = b""
        if not data:
            self._close(sock)
        elif data == b"hold\n" and self.on_done is None:
            self.held.append(sock)
        elif data == b"hang\n":
            _hang()
        elif data.startswith(b"use "):
            _, count, key_id = data.split()
            self._use(int(count), key_id.decode())
            self._answer(sock)
        elif data.startswith(b"find "):
            account = self.accounts.current.find(data.split()[1])
            verdict = self.accounts.current.verdict(account, time.time())
            spent = self.accounts.spent("tenant/acme", per_month=False)
            sock.send(f"{self.slot} {verdict or 'active'} {account and account.tenant} {spent}\n".encode())
        else:
            self._answer(sock)

    def _answer(self, sock: socket.socket) -> None:
        self.requests += 1
        who = (
            self.slot,
            os.getpid(),
            self.generation,
            self.workers,
            self.config.forward.node,
            os.getuid(),
            self.log_reopened,
            hashlib.sha256(self.ticket_secret).hexdigest()[:16],
        )
        sock.send((" ".join(map(str, who)) + "\n").encode())
        if self.on_done is not None:
            self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        self.loop.remove_reader(sock.fileno())
        self.row.remove_connection(self.open.pop(sock))
        sock.close()
        self._finish_if_empty()

    def _finish_if_empty(self) -> None:
        if not self.open:
            self.loop.call_soon(self._finish)

    def _finish(self) -> None:
        if self.on_done is not None:
            on_done, self.on_done = self.on_done, None
            on_done()


def _hang() -> None:
    while True:
        signal.pause()
