"""The store of accounts: a file of SQLite with keys (their digests), tenants, teams, and what was used.

One process writes: the supervisor, or a command while no supervisor runs; a lock beside the file sees to that. Each
change is one transaction, on the disk when its method returns (WAL, synchronous=FULL: measured below a millisecond for
a thousand entries on a local disk, once per accounts.flush). All methods block: the supervisor calls them in a thread.

A batch of usage carries its worker's mark and number, which are written in the same transaction: one that is written
again, because it was not clear whether the first time went well, changes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec

from edgeq.config.schema_llm import TokenLimits
from edgeq.errors import EdgeqError
from edgeq.llm.account import Account, Conversation, Entry, Snapshot, Team, Tenant
from edgeq.llm.redact import masked
from edgeq.llm.sums import KEY, TOLD, VALUES, Key, Spending, Sum, month_of, summed

_APPLICATION_ID: Final = 0x65646771  # "edgq"
VERSION: Final = 1
_BUSY_S: Final = 5.0
_MODE: Final = 0o600
_SWEEP_ROWS: Final = 5000
"""Old entries that are deleted with one batch: a sweep never takes long."""
_MARK_LIFE_S: Final = 7 * 86400.0
"""Marks of workers that have told nothing for so long are forgotten."""
GROUPS: Final = ("day", "month", "tenant", "team", "key", "model", "target")
"""By what usage may be told."""

_SCHEMA: Final = f"""
CREATE TABLE tenants (name TEXT PRIMARY KEY, weight INTEGER NOT NULL, limits TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE teams (
    tenant TEXT NOT NULL, name TEXT NOT NULL, limits TEXT NOT NULL, PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
CREATE TABLE keys (
    id TEXT PRIMARY KEY, digest BLOB NOT NULL UNIQUE, tenant TEXT NOT NULL, team TEXT NOT NULL, name TEXT NOT NULL,
    models TEXT NOT NULL, limits TEXT NOT NULL, created REAL NOT NULL, expires REAL NOT NULL, revoked REAL NOT NULL,
    old_digest BLOB NOT NULL, old_until REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE days (
    day TEXT NOT NULL, tenant TEXT NOT NULL, team TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL,
    target TEXT NOT NULL, {", ".join(f"{name} INTEGER NOT NULL" for name in VALUES)}, PRIMARY KEY ({", ".join(KEY)})
) WITHOUT ROWID;
CREATE TABLE requests (
    at REAL NOT NULL, tenant TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL, target TEXT NOT NULL,
    input INTEGER NOT NULL, output INTEGER NOT NULL, cached INTEGER NOT NULL, cache_write INTEGER NOT NULL,
    reasoning INTEGER NOT NULL, cost_micro INTEGER NOT NULL, status INTEGER NOT NULL, seconds REAL NOT NULL,
    first_token_s REAL NOT NULL
);
CREATE INDEX requests_at ON requests (at);
CREATE TABLE conversations (
    at REAL NOT NULL, request TEXT NOT NULL, tenant TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL,
    prompt TEXT NOT NULL, answer TEXT NOT NULL
);
CREATE INDEX conversations_at ON conversations (at);
CREATE TABLE batches (mark TEXT PRIMARY KEY, number INTEGER NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""
_REFUSED: Final = "SUM(CASE WHEN target = '' THEN errors ELSE 0 END)"
_SUMS: Final = {
    "requests": f"SUM(requests) - {_REFUSED}",
    "errors": f"SUM(errors) - {_REFUSED}",
    "refused": _REFUSED,
}
"""Of those in TOLD that are no column."""
_DELETE: Final = {
    "key": "DELETE FROM keys WHERE id = ?",
    "tenant": "DELETE FROM tenants WHERE name = ?",
    "team": "DELETE FROM teams WHERE tenant = ? AND name = ?",
}
"""By the kind of a subject."""
_ADD_DAY: Final = (
    f"INSERT INTO days VALUES ({', '.join('?' * (len(KEY) + len(VALUES)))}) ON CONFLICT DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in VALUES)
)


_NO_FILE: Final = (0, 0)
_open: Final[list[tuple[int, int]]] = []
"""Device and inode of the stores that this process has open."""


class StoreError(EdgeqError):
    """The store cannot be used; the message names its file."""


class Store:
    """An open store."""

    def __init__(self, path: str, writes: bool = True) -> None:
        """Open it; with `writes` make it if it is not there, and keep others from writing.

        Raises StoreError.
        """
        self.path = path
        self._file = _NO_FILE
        self._lock = _lock(path) if writes else -1
        try:
            self._db = _connect(path, writes)
        except sqlite3.Error as error:
            self._unlock()
            raise StoreError(f"{path}: {_why(error)}") from error
        try:
            self._check_version(writes)
        except sqlite3.Error as error:
            self.close()
            raise StoreError(f"{path}: {_why(error)}") from error
        except StoreError:
            self.close()
            raise
        self._file = _file(path)
        _open.append(self._file)

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        if self._file in _open:
            _open.remove(self._file)
            self._file = _NO_FILE
        self._unlock()

    # -- keys, tenants, teams -----------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All that there is. Raises StoreError."""
        try:
            accounts = tuple(_account(row) for row in self._db.execute("SELECT * FROM keys ORDER BY created, id"))
            tenants = tuple(
                Tenant(name, weight, _limits(limits))
                for name, weight, limits in self._db.execute("SELECT * FROM tenants ORDER BY name")
            )
            teams = tuple(
                Team(tenant, name, _limits(limits))
                for tenant, name, limits in self._db.execute("SELECT * FROM teams ORDER BY tenant, name")
            )
        except (sqlite3.Error, msgspec.MsgspecError, ValueError, TypeError) as error:
            raise StoreError(f"{self.path}: {_why(error)}") from error
        return Snapshot(accounts, tenants, teams)

    def put(self, change: Snapshot) -> None:
        """Write what is new, and what is different, and delete what is gone, but not what it has used.

        Raises StoreError, and then nothing has changed.
        """
        with self._transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO tenants VALUES (?, ?, ?)",
                [(one.name, one.weight, _text(one.limits)) for one in change.tenants],
            )
            db.executemany(
                "INSERT OR REPLACE INTO teams VALUES (?, ?, ?)",
                [(one.tenant, one.name, _text(one.limits)) for one in change.teams],
            )
            db.executemany(
                f"INSERT OR REPLACE INTO keys VALUES ({', '.join('?' * 12)})", [_row(one) for one in change.accounts]
            )
            for subject in change.gone:
                kind, *names = subject.split("/")
                db.execute(_DELETE[kind], names)

    # -- usage --------------------------------------------------------------------------------------------------------

    def add(
        self,
        mark: str,
        number: int,
        entries: Sequence[Entry],
        teams: Mapping[str, str],
        now: float,
        keeps_since: float,
        conversations: Sequence[Conversation] = (),
    ) -> dict[Key, Sum]:
        """Write a batch. `teams` by id of key; single requests from before `keeps_since` are deleted.

        Returns: the sums that were added; none if the batch was known. Raises StoreError: nothing was written.
        """
        sums = summed(entries, teams)
        with self._transaction() as db:
            known = db.execute("SELECT number FROM batches WHERE mark = ?", (mark,)).fetchone()
            if known is not None and known[0] >= number:
                return {}
            db.execute("INSERT OR REPLACE INTO batches VALUES (?, ?, ?)", (mark, number, now))
            db.executemany(_ADD_DAY, [(*key, *one.values()) for key, one in sums.items()])
            db.executemany(
                f"INSERT INTO requests VALUES ({', '.join('?' * 14)})",
                [msgspec.structs.astuple(one) for one in entries if one.at >= keeps_since],
            )
            db.executemany(
                "INSERT INTO conversations VALUES (?, ?, ?, ?, ?, ?, ?)",
                [msgspec.structs.astuple(one) for one in masked(conversations)],
            )
            for table in ("requests", "conversations"):
                db.execute(
                    f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE at < ? LIMIT {_SWEEP_ROWS})",
                    (keeps_since,),
                )
            db.execute("DELETE FROM batches WHERE at < ?", (now - _MARK_LIFE_S,))
        return sums

    def spending(self, day: str) -> Spending:
        """What was spent until now, as of `day`. Raises StoreError."""
        return Spending(
            day,
            self._rows(
                f"SELECT {', '.join(KEY)}, cost_micro FROM days WHERE day >= ?",
                (f"{month_of(day)}-01",),
            ),
        )

    def usage(self, by: Sequence[str], since: str = "", until: str = "", tenant: str = "") -> list[dict[str, Any]]:
        """Sums, TOLD, by some of GROUPS, from one day to another, both included, of one tenant or all; days first, then
        what costs most.

        Raises: StoreError; ValueError for another group.
        """
        if unknown := [one for one in by if one not in GROUPS]:
            raise ValueError(f"{unknown[0]!r} is none of {', '.join(GROUPS)}")
        columns = ["substr(day, 1, 7) AS month" if one == "month" else one for one in by]
        sums = [f"{_SUMS.get(name, f'SUM({name})')} AS {name}" for name in TOLD]
        order = [one for one in by if one in ("day", "month")] + ["cost_micro DESC", "input + output DESC", *by]
        rows = self._rows(
            f"SELECT {', '.join([*columns, *sums])} FROM days WHERE day >= ? AND day <= ? AND ? IN ('', tenant)"
            + (f" GROUP BY {', '.join(by)}" if by else "")
            + f" ORDER BY {', '.join(order)}",
            (since, until or "9999", tenant),
        )
        names = [*by, *TOLD]
        return [dict(zip(names, row, strict=True)) for row in rows if row[len(by)] is not None]

    # -- how ----------------------------------------------------------------------------------------------------------

    def _rows(self, query: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, tuple(values)).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {_why(error)}") from error

    @contextlib.contextmanager
    def _transaction(self) -> Any:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # some errors have rolled it back already
                    self._db.execute("ROLLBACK")
                raise
        except (sqlite3.IntegrityError, sqlite3.DataError):
            raise  # of what was to be written, not of the store: trying again would not help
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {_why(error)}") from error

    def _check_version(self, writes: bool) -> None:
        application, version = _identity(self._db)
        is_new = writes and not application and not version and not _has_tables(self._db)
        if not is_new and (problem := _problem(application, version)):
            raise StoreError(f"{self.path}: {problem}")
        if is_new:  # before it has a log, in which the file's header would stay for the first thousand pages
            self._db.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
        if writes:  # what is somebody else's has been left as it was
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def check_store(path: str) -> str:
    """What is wrong with a store that may not be there yet; empty if nothing is. Changes nothing."""
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        return f'the directory "{folder}" does not exist'
    if os.path.isdir(path):
        return f'"{path}" is a directory'
    if not os.access(folder, os.W_OK | os.X_OK):  # files stand beside it while it is in use, too
        return f'no file can be created in the directory "{folder}"'
    if not os.path.exists(path):
        return ""
    if not os.access(path, os.R_OK | os.W_OK):
        return f'"{path}" cannot be read and written'
    if _file(path) in _open:
        # It is a store. And to close a descriptor of it would take SQLite's locks away (POSIX has them by process): who
        # else has it open would take itself for the last one in the end, and delete the log that we still write.
        return ""
    try:
        with open(path, "rb") as file:
            head = file.read(72)
    except OSError as error:
        return f'"{path}" cannot be read: {error.strerror}'
    # The header, not a connection: that would make files beside it (SQLite's file format, 1.3).
    if head and not head.startswith(b"SQLite format 3\0"):
        return f'"{path}" is no store of accounts: file is not a database'
    problem = _problem(int.from_bytes(head[68:72], "big"), int.from_bytes(head[60:64], "big")) if head else ""
    return f'"{path}": {problem}' if problem else ""


def _file(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return _NO_FILE
    return found.st_dev, found.st_ino


def _problem(application: int, version: int) -> str:
    if application != _APPLICATION_ID:
        return "is a database of something else"
    if version > VERSION:
        return f"was written by a newer edgeq (version {version} of the store; this one knows {VERSION})"
    return ""


def _lock(path: str) -> int:
    """A descriptor that holds the lock. Raises StoreError."""
    try:
        fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
    except OSError as error:
        raise StoreError(f"{path}.lock cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise StoreError(f"{path}: another edgeq has it open; ask that one, by its admin socket") from error
    return fd


def _connect(path: str, writes: bool) -> sqlite3.Connection:
    if writes and not os.path.exists(path):
        with contextlib.suppress(OSError):  # sqlite says why
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE))
    mode = "rwc" if writes else "ro"
    # Methods run in a thread of their own, but one at a time.
    return sqlite3.connect(
        f"file:{quote(os.path.abspath(path))}?mode={mode}",
        timeout=_BUSY_S,
        isolation_level=None,
        check_same_thread=False,
        uri=True,
    )


def _identity(db: sqlite3.Connection) -> tuple[int, int]:
    return db.execute("PRAGMA application_id").fetchone()[0], db.execute("PRAGMA user_version").fetchone()[0]


def _has_tables(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _limits(text: str) -> TokenLimits:
    return msgspec.json.decode(text, type=TokenLimits)


def _account(row: tuple[Any, ...]) -> Account:
    key_id, digest, tenant, team, name, models, limits, created, expires, revoked, old_digest, old_until = row
    return Account(
        key_id,
        digest,
        tenant,
        team,
        name,
        msgspec.json.decode(models, type=tuple[str, ...]),
        _limits(limits),
        created,
        expires,
        revoked,
        old_digest,
        old_until,
    )


def _row(one: Account) -> tuple[Any, ...]:
    return (
        one.id,
        one.digest,
        one.tenant,
        one.team,
        one.name,
        _text(one.models),
        _text(one.limits),
        one.created,
        one.expires,
        one.revoked,
        one.old_digest,
        one.old_until,
    )
