"""Where each key of a TOML document stands: a path such as ("listener", 0, "tls", "min_version") to its line.

tomllib keeps no positions. This scanner does: it runs only over text that tomllib has accepted, so it needs no error
handling of its own, only the shapes of headers, keys, strings, arrays and inline tables.

A path that the document does not contain (a missing key) has the line of its nearest ancestor; the root has line 0.
Source: TOML 1.0.0, sections Keys, String, Table, Array of Tables, Inline Table.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from typing import Final

Path = tuple[str | int, ...]

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_KEEP_UNQUOTED: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_BLANK: Final = re.compile(r"[ \t]*")
_SPACE: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING: Final = re.compile(
    r'"""(?:[^\\"]|\\.|"(?!""))*"{3,5}'  # up to two quotes may precede the closing three
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^\\"\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_PLAIN: Final = re.compile(r"[^,\]}\n#]*")


class Lines:
    """The lines of one document. `file` is the name used in messages."""

    __slots__ = ("_lines", "file")

    def __init__(self, file: str, lines: Mapping[Path, int]) -> None:
        self.file: Final = file
        self._lines: Final = lines

    def line(self, path: Path) -> int:
        """The line of `path` or of its nearest ancestor that is written, from 1; 0 if none is."""
        while path:
            line = self._lines.get(path)
            if line is not None:
                return line
            path = path[:-1]
        return 0


def index(text: str, file: str) -> Lines:
    """Scan a document that tomllib has accepted."""
    scanner = _Scanner(text)
    scanner.document()
    return Lines(file, scanner.lines)


def show_path(path: Path) -> str:
    """("upstream", "a b", "endpoints", 0) as `upstream."a b".endpoints[0]`."""
    out = ""
    for step in path:
        if isinstance(step, int):
            out += f"[{step}]"
        else:
            key = step if _KEEP_UNQUOTED.fullmatch(step) else '"' + step.replace("\\", "\\\\").replace('"', '\\"') + '"'
            out += f".{key}" if out else key
    return out


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._pos = 0
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._lengths: dict[Path, int] = {}
        """Arrays of tables: how many [[headers]] each has had."""
        self.lines: dict[Path, int] = {}

    def document(self) -> None:
        table: Path = ()
        while True:
            self._skip(_SPACE)
            if self._pos >= len(self._text):
                return
            if self._text.startswith("[[", self._pos):
                table = self._header(2)
            elif self._text[self._pos] == "[":
                table = self._header(1)
            else:
                self._pair(table)

    def _header(self, brackets: int) -> Path:
        start = self._pos
        self._pos += brackets
        path: Path = ()
        keys = self._keys()
        for number, key in enumerate(keys):
            path = (*path, key)
            last = number == len(keys) - 1
            if last and brackets == 2:
                self._note(path, start)
                self._lengths[path] = self._lengths.get(path, 0) + 1
            if path in self._lengths:  # [listener.tls] speaks of the newest [[listener]]
                path = (*path, self._lengths[path] - 1)
            self._note(path, start)
        self._pos += brackets
        return path

    def _pair(self, table: Path) -> None:
        start = self._pos
        path = table
        for key in self._keys():
            path = (*path, key)
            self._note(path, start)
        self._pos += 1  # "="
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: Path) -> None:
        char = self._text[self._pos : self._pos + 1]
        if char in ('"', "'"):
            self._skip(_STRING)
        elif char == "[":
            self._items("]", path)
        elif char == "{":
            self._items("}", path)
        else:
            self._skip(_PLAIN)

    def _items(self, close: str, path: Path) -> None:
        """The inside of an array or of an inline table, and its closing bracket."""
        self._pos += 1
        number = 0
        while True:
            self._skip(_SPACE)
            if self._text[self._pos] == close:
                break
            if close == "]":
                self._note((*path, number), self._pos)
                self._value((*path, number))
                number += 1
            else:
                self._pair(path)
            self._skip(_SPACE)
            if self._text[self._pos] == ",":
                self._pos += 1
        self._pos += 1

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._skip(_BLANK)
            start = self._pos
            if self._text[start] in "\"'":
                self._skip(_STRING)
                keys.append(tomllib.loads("key = " + self._text[start : self._pos])["key"])
            else:
                self._skip(_BARE)
                keys.append(self._text[start : self._pos])
            self._skip(_BLANK)
            if self._text[self._pos] != ".":
                return keys
            self._pos += 1

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._pos)
        if match is not None:
            self._pos = match.end()

    def _note(self, path: Path, pos: int) -> None:
        self.lines.setdefault(path, bisect_right(self._newlines, pos) + 1)
