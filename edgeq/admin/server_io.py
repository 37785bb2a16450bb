"""The admin socket: a Unix socket (mode 0660) that tells HTTP from text by the first line.

One command per connection, then it closes: `echo "show workers" | nc -U PATH` ends by itself, as with HAProxy's socket.
Plain coroutines: this is the control plane, where a few milliseconds do not matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from http import HTTPStatus
from typing import Final

import h11
import orjson

from edgeq.admin.commands import Answer, Command, Control, find_http, find_text, render_text
from edgeq.observe import log_io
from edgeq.supervisor.sockets_io import UnixPath, peer

_log = log_io.get_logger()
_MAX_LINE_BYTES: Final = 8 * 1024
_MAX_REQUEST_BYTES: Final = 64 * 1024
_REQUEST_TIMEOUT_S: Final = 10.0
_BACKLOG: Final = 64


class AdminServer:
    """Listens at one path."""

    def __init__(self, path: str, control: Control) -> None:
        self._path = UnixPath(path, 0o660)
        self._control = control
        self._sock: socket.socket | None = self._path.bind(f"cannot open the admin socket {path}")
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to answer."""
        sock, self._sock = self._sock, None
        self._server = await asyncio.start_unix_server(self._handle, sock=sock, limit=_MAX_LINE_BYTES, backlog=_BACKLOG)

    async def close(self) -> None:
        """Take the path away and end what is open; answers that are ready get out first."""
        self._path.unlink()
        if self._sock is not None:
            self._sock.close()
        if self._server is not None:
            self._server.close()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=0.5)
            for task in self._tasks:
                task.cancel()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                line = await reader.readline()
                request = await _read_http(line, reader) if b" HTTP/1." in line else None
            if request is not None:
                method, path = request
                found = find_http(method, path)
                answer = found if isinstance(found, Answer) else await self._run(found, writer)
                writer.write(_http(answer))
            elif line.strip():
                text = find_text(line.decode(errors="replace"))
                if isinstance(text, Command):
                    text = render_text((await self._run(text, writer)).body)
                    writer.write(text.encode())
                else:
                    writer.write(f"error: {text}\n".encode())
            await writer.drain()
        except h11.RemoteProtocolError as error:
            writer.write(_http(Answer(error.error_status_hint, {"ok": False, "error": str(error)})))
        except (OSError, ValueError, TimeoutError):
            pass  # the client left, or sent no end of its line: there is nobody to tell
        finally:
            self._tasks.discard(task)
            with contextlib.suppress(OSError):
                writer.close()

    async def _run(self, command: Command, writer: asyncio.StreamWriter) -> Answer:
        if command.level == "admin":
            pid, uid, gid = peer(writer.get_extra_info("socket"))
            _log.info("admin command", command=command.words, peer_pid=pid, uid=uid, gid=gid)
        return await command.run(self._control)


async def _read_http(line: bytes, reader: asyncio.StreamReader) -> tuple[str, str]:
    """Read one whole request. Returns method and path."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_REQUEST_BYTES)
    connection.receive_data(line)
    method, path = "", ""
    received = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(_MAX_LINE_BYTES)
            received += len(data)
            if received > _MAX_REQUEST_BYTES:
                raise h11.RemoteProtocolError("request too large", error_status_hint=413)
            if connection.they_are_waiting_for_100_continue:
                raise h11.RemoteProtocolError("no body is needed", error_status_hint=417)
            connection.receive_data(data)
        elif isinstance(event, h11.Request):
            method, path = event.method.decode(), event.target.decode(errors="replace").partition("?")[0]
        elif isinstance(event, h11.EndOfMessage):
            return method, path
        elif isinstance(event, h11.ConnectionClosed):
            raise ConnectionResetError("the client left")


def _http(answer: Answer) -> bytes:
    body = orjson.dumps(answer.body, option=orjson.OPT_APPEND_NEWLINE)
    connection = h11.Connection(h11.SERVER)
    headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
    response = h11.Response(status_code=answer.status, headers=headers, reason=HTTPStatus(answer.status).phrase)
    parts = (connection.send(response), connection.send(h11.Data(data=body)), connection.send(h11.EndOfMessage()))
    return b"".join(part for part in parts if part)
