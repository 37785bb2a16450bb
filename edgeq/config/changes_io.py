"""The file of live changes that shall outlive a restart (`edgeq set --persist`): one [[change]] for each.

It is written whole, to a new file that replaces the old one once it is on the disk, so a crash leaves the one or the
other. Owner and mode stay as they are.
"""

from __future__ import annotations

import contextlib
import os
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from edgeq.config.change import Change, toml
from edgeq.errors import ConfigError, Problem

_HEAD: Final = "# Written by edgeq: what `edgeq set --persist` has changed. `edgeq unset` takes a change back.\n"
_MODE: Final = 0o640
_FOLDER_MODE: Final = 0o755


def read_changes(path: str) -> tuple[Change, ...]:
    """What is kept there; nothing if there is no such file. Raises ConfigError, naming the file."""
    if not path:
        return ()
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
        return tuple(map(_change, document.get("change", ())))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigError([Problem(path, 0, "", f"cannot be read: {error.strerror}")]) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"a change in it has no {error}" if isinstance(error, KeyError) else str(error)
        message = f"no file of edgeq's live changes: {what}; move it away to start without"
        raise ConfigError([Problem(path, 0, "", message)]) from error


def write_changes(path: str, changes: Sequence[Change]) -> None:
    """Replace the file, which may be a symbolic link to it. Raises OSError, and then the old one is still there."""
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, _FOLDER_MODE)
    try:
        found = os.stat(path)
        mode, owner = found.st_mode & 0o7777, (found.st_uid, found.st_gid)
    except FileNotFoundError:
        mode, owner = _MODE, None
    new = f"{path}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with open(fd, "wb") as file:
            if owner is not None and owner != (os.geteuid(), os.getegid()):
                os.fchown(fd, *owner)
            os.fchmod(fd, mode)
            file.write((_HEAD + "".join(map(_text, changes))).encode())
            file.flush()
            os.fsync(fd)
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
    _sync(folder)


def _sync(folder: str) -> None:
    """The new name, too, must be on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _change(table: Mapping[str, Any]) -> Change:
    until = table.get("until")
    return Change(
        resource=str(table["resource"]),
        key=str(table["key"]),
        value=table["value"],
        was=table.get("was"),
        uid=int(table.get("uid", -1)),
        since=table["since"].timestamp(),
        until=until.timestamp() if until is not None else None,
        comment=str(table.get("comment", "")),
        persisted=True,
    )


def _text(change: Change) -> str:
    fields = {
        "resource": change.resource,
        "key": change.key,
        "value": change.value,
        "was": change.was,
        "uid": change.uid,
        "since": datetime.fromtimestamp(change.since, UTC),
        "until": datetime.fromtimestamp(change.until, UTC) if change.until is not None else None,
        "comment": change.comment or None,
    }
    return "\n[[change]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in fields.items() if value is not None)
