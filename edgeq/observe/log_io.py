"""Events of edgeq itself: structlog, one line for each event, to stderr.

On a terminal they are for people, so they come as console lines in colour, unless NO_COLOR is set (no-color.org). The
access log on stdout is data: it has the format that is configured, whatever stdout is, and nothing else is written
there. So who has both on one terminal tells them apart, and `edgeq serve 2>/dev/null | jq` gets only JSON.

Invariants
- Writing an event never raises and never ends a request: what stderr does not take is counted and gone.
- One event is one line, in JSON whatever it holds; an exception is its whole traceback in one string.
- `set_level` and a second `configure` reach loggers that were bound long before, because the one list of processors is
  changed in place and the level is asked for each event.
- Whoever has put a `tap` in gets each event that is written as a line of JSON, whatever the format is: the admin
  socket shows events, those of the workers by way of the board.
- Loggers carry what they were bound with (``get_logger(worker=3)``): no context variables, which would be copied for
  each callback of the loop. The process id is taken when the event happens, so that it is right after a fork.

structlog imports rich, better_exceptions and colorama if they are installed, and then each worker pays (62 ms and
7.5 MiB instead of 16 ms and 2.2 MiB); they are hidden while it is imported and found again afterwards.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from types import ModuleType
from typing import Any, Final, Literal, cast

import orjson

from edgeq.config import schema

_modules = cast("dict[str, ModuleType | None]", sys.modules)
_hidden: Final = [name for name in ("rich", "better_exceptions", "colorama") if name not in _modules]
for _name in _hidden:
    _modules[_name] = None  # makes `import` raise ImportError
try:
    import structlog
    import structlog.dev
finally:
    for _name in _hidden:
        del _modules[_name]

Level = Literal["debug", "info", "warning", "error"]
Logger = structlog.typing.FilteringBoundLogger
_Event = MutableMapping[str, Any]

_RANK: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "exception": 40, "critical": 50}
_OPTIONS: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z
_processors: Final[list[Any]] = []


class Sink:
    """A descriptor as structlog's logger: a line is written by os.write, and an error is counted, not raised.

    structlog's BytesLogger would raise it, and it holds a lock that is not reentrant: an event from a finalizer (such
    as asyncio's "Task was destroyed"), run by the garbage collector within another event's write, would never end.
    """

    __slots__ = ("fd", "lost")

    def __init__(self, fd: int = 2) -> None:
        self.fd = fd
        self.lost = 0

    def write(self, line: bytes) -> None:
        """Write it and a line feed, in several steps if the descriptor takes less."""
        line += b"\n"
        written = 0
        try:
            while written < len(line):
                written += os.write(self.fd, line[written:])
        except OSError:  # a full disk, a reader that left, a full pipe of someone who made it non-blocking
            self.lost += 1

    debug = info = warning = error = critical = write  # structlog calls the method that is named like the level


class _Threshold:
    __slots__ = ("rank",)

    def __init__(self) -> None:
        self.rank = _RANK["info"]


class _Tap:
    __slots__ = ("max_bytes", "take")

    def __init__(self) -> None:
        self.take: Callable[[bytes], None] | None = None
        self.max_bytes = 0


_threshold: Final = _Threshold()
_tap: Final = _Tap()
sink: Final = Sink()
"""Where events go; `sink.lost` counts those that stderr did not take."""


def configure(log: schema.EventLog) -> None:
    """Set up structlog, and bring warnings of libraries (logging, asyncio's unhandled exceptions) into the same lines.

    May be called again, for a reload: loggers that exist follow.
    """
    set_level(log.level)
    is_terminal = os.isatty(sink.fd)
    in_colour = is_terminal and not os.environ.get("NO_COLOR")
    console = log.format == "console" or (log.format == "auto" and is_terminal)
    _processors[:] = [_filter, _envelope, structlog.processors.format_exc_info, _copy]
    if console:
        renderer = structlog.dev.ConsoleRenderer(
            colors=in_colour, exception_formatter=structlog.dev.plain_traceback, sort_keys=False
        )
        _processors.extend((_printable, renderer, _encode))
    else:
        _processors.append(_render_json)
    structlog.configure(
        processors=_processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        context_class=dict,
        logger_factory=_get_sink,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    if not any(isinstance(handler, _Bridge) for handler in root.handlers):
        root.addHandler(_Bridge(logging.WARNING))


def _get_sink(*_args: object) -> Sink:
    return sink


def set_level(level: Level) -> None:
    """Log events from this level on, from now on. Raises ValueError for an unknown one."""
    if level not in ("debug", "info", "warning", "error"):
        raise ValueError(f"log level {level!r}: expected 'debug', 'info', 'warning' or 'error'")
    _threshold.rank = _RANK[level]


def tap(take: Callable[[bytes], None] | None, max_bytes: int = 1 << 16) -> None:
    """From now on give each event to `take` as well, as one line of JSON; one that is longer than `max_bytes` without
    what it carries. None: to nobody."""
    _tap.take = take
    _tap.max_bytes = max_bytes


def get_logger(**bound: object) -> Logger:
    """A logger; what it is bound with (worker=3) is in each of its events."""
    return cast(Logger, structlog.get_logger(**bound))


def _filter(_logger: object, method: str, event: _Event) -> _Event:
    if _RANK.get(method, 50) < _threshold.rank:
        raise structlog.DropEvent
    return event


def _envelope(_logger: object, method: str, event: _Event) -> _Event:
    now = datetime.datetime.now(datetime.UTC)
    head = {
        "timestamp": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "level": "error" if method == "exception" else method,
        "event": event.pop("event", ""),
        "pid": os.getpid(),
    }
    return head | dict(event)


def _copy(logger: object, method: str, event: _Event) -> _Event:
    if _tap.take is not None:
        try:
            line = _render_json(logger, method, event)
            if len(line) > _tap.max_bytes:
                short = {key: event[key] for key in ("timestamp", "level", "event", "pid")}
                line = _render_json(logger, method, {**short, "event": str(event["event"])[:200], "cut": True})
            _tap.take(line)
        except Exception:  # as with stderr: whoever looks on must not break who wrote it
            sink.lost += 1
    return event


def _render_json(_logger: object, _method: str, event: _Event) -> bytes:
    try:
        return orjson.dumps(event, default=_plain, option=_OPTIONS)
    except TypeError:  # lone surrogates, integers beyond 64 bits, cycles: rare, and the event must not be lost
        safe = {str(key): value if isinstance(value, str) else _plain(value) for key, value in event.items()}
        return json.dumps(safe).encode("ascii")


def _plain(value: object) -> str:
    """What JSON has no form for."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return repr(value)


def _printable(_logger: object, _method: str, event: _Event) -> _Event:
    """For the console: no value may move the cursor or begin a line of its own, except the lines of a traceback."""
    return {key: _escape(value, "\n" if key == "exception" else "") for key, value in event.items()}


def _escape(value: object, keep: str) -> object:
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value
    if not isinstance(text, str) or text.isprintable():
        return text
    return "".join([c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text])


def _encode(_logger: object, _method: str, line: object) -> bytes:
    return str(line).encode("utf-8", "backslashreplace")


class _Bridge(logging.Handler):
    """Records of `logging` become events."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields: Mapping[str, Any] = {"logger": record.name}
            if record.exc_info:
                fields = {**fields, "exc_info": record.exc_info}
            get_logger().log(record.levelno - record.levelno % 10, record.getMessage(), **fields)
        except Exception:  # a log record must not break who wrote it
            sink.lost += 1
