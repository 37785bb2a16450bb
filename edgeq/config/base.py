"""What every table of the configuration is made of: its base, and values that have rules of their own."""

from __future__ import annotations

from typing import Annotated

import msgspec


class Duration(float):
    """Seconds. A class of its own so that the loader knows where units are allowed."""

    __slots__ = ()


class Size(int):
    """Bytes. A class of its own so that the loader knows where units are allowed."""

    __slots__ = ()


class Text(str):
    """A string that may have several lines, and signs that are not seen (the joiners of emoji); others may not.
    A plain str once it is loaded."""

    __slots__ = ()


Number = Annotated[float, msgspec.Meta(ge=-(2.0**31))]
Integer = Annotated[int, msgspec.Meta(ge=-(2**31))]
"""May be negative; other numbers may not."""


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration file."""
