"""The process that forks the workers: `python -m edgeq.supervisor.spawner_io FD APP LOOP`.

It is started by exec, has one thread and no loop, and has imported everything that a worker needs; so a fork is cheap
(5 MiB a worker instead of 16), inherits nothing it could trip over, and cannot copy a held lock. Its heap is frozen
before the first fork, so that no collection in a worker touches, and thereby copies, shared pages.

It only forks and reaps. Descriptors of a request are closed here as soon as the child has them: the supervisor must see
the end of a control socket when the worker dies, and not when we do. When the supervisor dies we see the end of our own
socket and leave; the workers follow the ends of theirs.
"""

from __future__ import annotations

import codecs
import gc
import os
import select
import socket
import sys
import traceback
from typing import Final, NoReturn

from edgeq.supervisor import process_io
from edgeq.supervisor.channel_io import receive, send_blocking
from edgeq.supervisor.frames import FrameReader
from edgeq.supervisor.launch import load_part
from edgeq.supervisor.messages import (
    Exited,
    Spawn,
    Spawned,
    SpawnerReady,
    SpawnFailed,
    decode_spawn,
    encode_message,
    unpack_config,
)
from edgeq.worker import run_io

_STDIO: Final = frozenset((0, 1, 2))
_CODECS: Final = ("ascii", "latin-1", "utf-8", "idna")
"""Python imports a codec when it is first used; a worker that has dropped its privileges may not be able to."""


class _Child(Exception):
    """Raised in a new worker."""

    def __init__(self, spawn: Spawn, fds: list[int]) -> None:
        self.spawn = spawn
        self.fds = fds


class Spawner:
    """The loop of the process."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = FrameReader()
        self._pidfds: dict[int, int] = {}
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def run(self) -> None:
        """Until the supervisor is gone. Raises _Child in each worker."""
        send_blocking(self._sock, encode_message(SpawnerReady()))
        while True:
            for fd, _events in self._poll.poll():
                if fd in self._pidfds:
                    self._reap(fd)
                elif not self._serve():
                    return

    def _serve(self) -> bool:
        frames = receive(self._sock, self._reader, with_fds=True)
        for frame in frames or ():
            self._spawn(decode_spawn(frame.payload), frame.fds)
        return frames is not None

    def _spawn(self, spawn: Spawn, fds: list[int]) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            send_blocking(self._sock, encode_message(SpawnFailed(spawn.slot, os.strerror(error.errno or 0))))
        else:
            if pid == 0:
                raise _Child(spawn, fds)
            # Opened before we could reap it: this descriptor can mean no other process.
            pidfd = os.pidfd_open(pid)
            self._pidfds[pidfd] = pid
            self._poll.register(pidfd, select.POLLIN)
            send_blocking(self._sock, encode_message(Spawned(spawn.slot, pid)), [pidfd])
        for fd in fds:
            os.close(fd)

    def _reap(self, pidfd: int) -> None:
        pid, status = os.waitpid(self._pidfds.pop(pidfd), 0)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        send_blocking(self._sock, encode_message(Exited(pid, status)))


def _close_all_but(keep: frozenset[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd not in keep:
            try:
                os.close(fd)
            except OSError:  # the descriptor of the listing itself
                continue


def _become_worker(child: _Child, app: str, loop: str) -> NoReturn:
    code = 1
    try:
        spawn = child.spawn
        control_fd, board_fd, where_fd, *rest = child.fds
        leftover_fd = rest.pop() if spawn.accounts is not None else -1
        bells, listener_fds = rest[: spawn.bells], rest[spawn.bells :]
        _close_all_but(_STDIO | frozenset(child.fds))
        process_io.set_name(f"edgeq-w{spawn.slot}")
        process_io.tell_where_asked(where_fd)
        sockets = {address: socket.socket(fileno=fd) for address, fd in zip(spawn.addresses, listener_fds, strict=True)}
        control = socket.socket(fileno=control_fd)
        if spawn.credentials is not None:
            process_io.become(spawn.credentials)
        gc.enable()
        code = run_io.main(
            slot=spawn.slot,
            workers=spawn.workers,
            generation=spawn.generation,
            config=unpack_config(spawn.config),
            ticket_secret=spawn.tickets.value,
            control=control,
            board_fd=board_fd,
            bells=bells,
            sockets=sockets,
            kept=spawn.kept,
            accounts=spawn.accounts,
            leftover_fd=leftover_fd,
            make_app=load_part(app),
            make_loop=load_part(loop),
        )
    except BaseException:
        traceback.print_exc()
    finally:
        # No clean-up of the spawner's: its objects are only copies here.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(fd: int, app: str, loop: str) -> int:
    """Run the spawner on its end of the channel."""
    process_io.follow_the_supervisor()
    process_io.go_first()
    process_io.set_name("edgeq-spawner")
    load_part(app)
    load_part(loop)
    for codec in _CODECS:
        codecs.lookup(codec)
    gc.disable()
    gc.collect()
    gc.freeze()
    child: _Child | None = None
    try:
        with socket.socket(fileno=fd) as sock:
            sock.setblocking(True)
            Spawner(sock).run()
    except _Child as born:
        child = born
    except (BrokenPipeError, ConnectionResetError):
        pass  # the supervisor is gone
    if child is not None:
        # Outside of the handler: else each traceback of the worker would begin with this one, and its configuration.
        _become_worker(child, app, loop)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
