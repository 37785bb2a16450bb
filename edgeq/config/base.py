"""What every table of the configuration is made of: its base, and the two kinds of numbers that take units."""

from __future__ import annotations

import msgspec


class Duration(float):
    """Seconds. A class of its own so that the loader knows where units are allowed."""

    __slots__ = ()


class Size(int):
    """Bytes. A class of its own so that the loader knows where units are allowed."""

    __slots__ = ()


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration file."""
