"""Texts with variables: "Summarize: {{text}}". Nothing but names: no logic, no filters, no expressions.

Two opening braces begin a variable; where a text needs them itself it says four: "{{{{" is "{{". Closing braces mean
something behind a name only. What a variable says is put in as it is, and never looked at again.
"""

from __future__ import annotations

import re
from typing import Final

_TOKEN: Final = re.compile(r"\{\{\{\{|\{\{[ \t]*([A-Za-z_][A-Za-z0-9_]{0,63})[ \t]*\}\}|\{\{")
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)


class Template:
    """A text, cut at its variables once."""

    __slots__ = ("_names", "_texts")

    def __init__(self, text: str) -> None:
        """Raises: ValueError for braces that are no variable."""
        self._texts: list[str] = []
        """One more than there are names: text, name, text, name, text."""
        self._names: list[str] = []
        kept = ""
        at = 0
        for found in _TOKEN.finditer(text):
            kept += text[at : found.start()]
            at = found.end()
            name = found[1]
            if name is not None:
                self._texts.append(kept)
                self._names.append(name)
                kept = ""
            elif found[0] == "{{{{":
                kept += "{{"
            else:
                near = text[found.start() : found.start() + 24]
                raise ValueError(
                    f'"{near}" is no variable ("{{{{name}}}}"); two braces themselves are written "{{{{{{{{"'
                )
        self._texts.append(kept + text[at:])

    def names(self) -> list[str]:
        """Of its variables, in order; one that comes twice is here twice."""
        return self._names

    def render(self, values: dict[str, str]) -> str:
        """The text with what the variables say. Raises: KeyError for one that is not there."""
        if not self._names:
            return self._texts[0]
        parts: list[str] = []
        for number, name in enumerate(self._names):
            parts.append(self._texts[number])
            parts.append(values[name])
        parts.append(self._texts[-1])
        return "".join(parts)
