r"""The text format of tests/cases: raw requests, what the client must get, what the upstream must have seen.

A file holds cases::

    == content-length-and-chunked
    Both kinds of length are two readings of one message.
    source: RFC 9112 6.1; CL.TE, PortSwigger 2019
    > POST / HTTP/1.1
    > Host: a
    > Content-Length: 6
    > Transfer-Encoding: chunked
    >
    > 0
    >
    > X\
    refused: 400

``>`` lines are what the client sends, ``<`` lines what the upstream answers. Each stands for its text and a CRLF; a
``\`` at the very end leaves the CRLF out. Escapes: ``\r \n \t \0 \s`` (space) ``\xHH \\``; ``{{A*9000}}`` repeats.
Lines that begin with ``#`` are comments. Keys about the exchange:

    answer on: request | head | connect    when the upstream answers (default request)
    then: keep | close | reset | half-close | stall    what the upstream does after its answer (default keep)
    client ends: half-close                the client sends FIN after its request
    methods: GET HEAD                      of pipelined requests, where the answers' framing needs it
    only: whole                            not sent in pieces

Keys about the outcome; `or:` begins an alternative (what the RFC also allows):

    refused: 400           client gets 400 (alternatives "400/501") and a close, the upstream sees nothing
    refused late: 400      the same for a fault in the body: the upstream may see a part, never a complete request
    client: 200 keep       answers in order: "200, 200", each a status, "4xx" or "400/417", perhaps "truncated";
                           then perhaps "close" or "keep" (a further request on this connection is answered);
                           "none close": closed without an answer
    client has: Name: value        client lacks: Name        client body: text        client interim: 100, 103
    client trailer: Name: value    client raw lacks: bytes
    upstream: nothing | N requests | incomplete | any
    upstream line: POST / HTTP/1.1    (of the first request)     upstream has: Name: value | Name
    upstream lacks: Name | Name: value        upstream body: text        upstream raw lacks: bytes
    upstream trailer: Name: value    upstream lacks trailer: Name
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|[rnt0s\\])|\{\{((?:[^{}]|\\.)+?)\*(\d+)\}\}")
_PLAIN = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "s": " ", "\\": "\\"}
_EXCHANGE_KEYS = {"source", "answer on", "then", "client ends", "methods", "only"}
_OUTCOME_KEYS = {
    "client has",
    "client lacks",
    "client body",
    "client interim",
    "client trailer",
    "client raw lacks",
    "upstream line",
    "upstream has",
    "upstream lacks",
    "upstream body",
    "upstream raw lacks",
    "upstream trailer",
    "upstream lacks trailer",
}


class FormatError(Exception):
    """A case file is not as the module's docstring says."""


@dataclasses.dataclass(slots=True)
class Outcome:
    """One allowed outcome. `statuses` are regular expressions, one for each answer."""

    statuses: list[str] = dataclasses.field(default_factory=list)
    truncated: bool = False
    end: str = ""
    """"close", "keep" or "" for either."""
    upstream: str = ""
    """"nothing", "incomplete", "any" or a number of complete requests."""
    checks: list[tuple[str, bytes]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class Case:
    """One exchange."""

    name: str
    path: Path
    line: int
    sentence: str = ""
    source: str = ""
    request: bytes = b""
    answer: bytes | None = None
    answer_on: str = "request"
    then: str = "keep"
    client_ends: str = ""
    methods: list[bytes] = dataclasses.field(default_factory=list)
    only_whole: bool = False
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)

    @property
    def id(self) -> str:
        return f"{self.path.stem}/{self.name}"

    def method(self, index: int) -> bytes:
        """Method of the n-th request, for the framing of its answer."""
        if index < len(self.methods):
            return self.methods[index]
        first = self.request.lstrip(b"\r\n").split(b" ", 1)[0]
        return first if index == 0 and first in (b"HEAD", b"CONNECT") else b"GET"


def unescape(text: str) -> bytes:
    """Text of a case file as bytes. Characters above U+00FF are encoded as UTF-8, others as they are in Latin-1."""

    def replace(match: re.Match[str]) -> str:
        escape, unit, count = match.groups()
        if escape is None:
            return _ESCAPE.sub(replace, unit) * int(count)
        return chr(int(escape[1:], 16)) if escape[0] == "x" else _PLAIN[escape]

    return _ESCAPE.sub(replace, text).encode("latin-1")


def _wire_line(text: str) -> bytes:
    text = text.removeprefix(" ")
    trailing = len(text) - len(text.rstrip("\\"))
    if trailing % 2:
        return unescape(text[:-1])
    return unescape(text) + b"\r\n"


def _client(outcome: Outcome, value: str) -> None:
    words = value.replace(",", " ").split()
    if words and words[-1] in ("close", "keep"):
        outcome.end = words.pop()
    if words and words[-1] == "truncated":
        outcome.truncated = True
        words.pop()
    if words == ["none"]:
        return
    for word in words:
        if not re.fullmatch(r"[1-9]([0-9]{2}|xx)(/[1-9]([0-9]{2}|xx))*", word):
            raise ValueError(f"status {word!r}")
        outcome.statuses.append(word.replace("x", "[0-9]").replace("/", "|"))


def _outcome_key(outcome: Outcome, key: str, value: str) -> None:
    if key in ("refused", "refused late"):
        _client(outcome, value + " close")
        outcome.upstream = "nothing" if key == "refused" else "incomplete"
    elif key == "client":
        _client(outcome, value)
    elif key == "upstream":
        outcome.upstream = value.split()[0]
        if outcome.upstream not in ("nothing", "incomplete", "any") and not outcome.upstream.isdigit():
            raise ValueError(f"upstream {value!r}")
    elif key in _OUTCOME_KEYS:
        outcome.checks.append((key, unescape(value)))
    else:
        raise ValueError(f"key {key!r}")


def _key(case: Case, key: str, value: str) -> None:
    if key == "source":
        case.source = value
    elif key == "answer on" and value in ("request", "head", "connect"):
        case.answer_on = value
    elif key == "then" and value in ("keep", "close", "reset", "half-close", "stall"):
        case.then = value
    elif key == "client ends" and value == "half-close":
        case.client_ends = value
    elif key == "methods":
        case.methods = value.encode().split()
    elif key == "only" and value == "whole":
        case.only_whole = True
    elif key in _EXCHANGE_KEYS:
        raise ValueError(f"{key}: {value!r}")
    else:
        if not case.outcomes:
            case.outcomes.append(Outcome())
        _outcome_key(case.outcomes[-1], key, value)


def parse(text: str, path: Path) -> Iterator[Case]:
    """Cases of one file. Raises FormatError with file and line."""
    case: Case | None = None
    for number, line in enumerate(text.splitlines(), 1):
        try:
            if line.startswith("== "):
                if case is not None:
                    yield _checked(case)
                case = Case(line[3:].strip(), path, number)
            elif line.startswith("#") or not line.strip():
                continue
            elif case is None:
                raise ValueError("text before the first case")
            elif line.startswith(">"):
                case.request += _wire_line(line[1:])
            elif line.startswith("<"):
                case.answer = (case.answer or b"") + _wire_line(line[1:])
            elif line.strip() == "or:":
                case.outcomes.append(Outcome())
            elif not case.sentence:
                case.sentence = line.strip()
            else:
                key, colon, value = line.partition(":")
                if not colon:
                    raise ValueError(f"no key in {line!r}")
                _key(case, key.strip(), value.strip())
        except ValueError as error:
            raise FormatError(f"{path}:{number}: {error}") from error
    if case is not None:
        yield _checked(case)


def _checked(case: Case) -> Case:
    if not (case.sentence and case.source and case.request and case.outcomes):
        raise FormatError(f"{case.path}:{case.line}: {case.name} lacks a sentence, a source, a request or an outcome")
    for outcome in case.outcomes:
        if not outcome.statuses and outcome.end != "close":
            raise FormatError(f"{case.path}:{case.line}: {case.name}: an outcome says nothing about the client")
    return case


def load(directory: Path) -> list[Case]:
    """All cases of all files, in order of files. Raises FormatError, also for a name used twice in a file."""
    cases: list[Case] = []
    seen: set[str] = set()
    for path in sorted(directory.glob("*.txt")):
        for case in parse(path.read_text("latin-1"), path):
            if case.id in seen:
                raise FormatError(f"{path}:{case.line}: {case.name} twice")
            seen.add(case.id)
            cases.append(case)
    return cases
