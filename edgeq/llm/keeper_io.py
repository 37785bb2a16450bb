"""The supervisor's part of accounts: it alone has the store, tells workers what it says, and writes what they use.

    command -> change -> store (in a thread) -> registry -> every worker -> answer
    batch of a worker -> store (in a thread) -> spending -> "taken" to that worker
    what workers of a killed supervisor have left (leftover_io.py) -> store -> spending

The loop never waits for the disk. If the store cannot be written (a full disk), workers serve on from what they know;
what they use waits in them and here, one batch each, and is written once that is possible.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from edgeq.admin.accounts import Make
from edgeq.config.scarce import Offered
from edgeq.config.schema_llm import Accounts as Settings
from edgeq.errors import EXIT_CONFIG, StartError
from edgeq.llm import leftover_io
from edgeq.llm.lately import Lately, Used
from edgeq.llm.redact import masked
from edgeq.llm.registry import Made, Registry
from edgeq.llm.store_io import Store, StoreError
from edgeq.llm.sums import Key, Sum, day_of
from edgeq.observe import log_io
from edgeq.supervisor.messages import AccountsTold, Message, UsageTaken, UsageTold, decode_from_worker, encode_message

_log = log_io.get_logger()
_NICE: Final = 10

T = TypeVar("T")
_KNOWN_S: Final = 1.0
"""For all workers to know of a change; who does not is told of, and learns it when it goes on."""
_RETRY_S: Final = 1.0
_CLOSE_S: Final = 5.0


class Workers(Protocol):
    """Who is told."""

    def tell(self, message: Message) -> None:
        """All of them."""

    async def accounts_taken(self, number: int, timeout_s: float) -> Sequence[int]:
        """Wait until they know of this change. Returns the slots of those that do not."""


def _be_nice() -> None:
    """What is written once a second may wait for those who answer requests; on Linux this is of the thread alone.

    A favour: where it is forbidden (by the filter of system calls in edgeq.service) the thread works as it is.
    """
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


class Keeper:
    """Keeps the store. It is the `AccountsControl` of the admin socket."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, settings: Settings, workers: Workers, models: Mapping[str, Offered]
    ) -> None:
        """Open the store; `models` as `configure` takes them. Raises StartError."""
        self._loop = loop
        self._settings = settings
        self._workers = workers
        self.models = models
        try:
            self._store = Store(settings.store)
            try:
                self.registry = Registry(self._store.snapshot())
                self.spending = self._store.spending(day_of(time.time()))
            except BaseException:
                self._store.close()
                raise
        except StoreError as error:
            raise StartError(f"accounts.store: {error}", EXIT_CONFIG) from error
        self.leftover_fd = self._open_leftover()
        # One thread: what is asked of the store is done in order.
        self._thread = ThreadPoolExecutor(1, "accounts", _be_nice)
        self._number = 0
        """Of the last change."""
        self._lately = Lately()
        self._changing = asyncio.Lock()
        self._waiting: deque[tuple[UsageTold, Callable[[Message], None]]] = deque()
        """One of each worker at most."""
        self._writing: asyncio.Task[None] | None = None
        self._failing = False
        self._problem = ""
        """Why the store cannot be written, since `_failing_at` (monotonic); empty: it can."""
        self._failing_at = 0.0
        self._closing = False
        self._leftover: asyncio.Task[None] | None = None
        self._beat: asyncio.TimerHandle = loop.call_later(float(settings.flush), self._tell_spent)

    def configure(self, settings: Settings, models: Mapping[str, Offered]) -> list[str]:
        """Other settings of the same store; `models` as `AccountsControl` has them. Returns what keys have lost by that
        (`Registry.lost_models`)."""
        lost = self.registry.lost_models(self.models, models, time.time())
        self._settings = settings
        self.models = models
        return lost

    def told(self) -> AccountsTold:
        """What a new worker has to know."""
        return AccountsTold(self._number, self.registry.snapshot(), self.spending.whole())

    async def close(self) -> None:
        """Write what waits, and let go of the store."""
        self._closing = True
        self._beat.cancel()
        if self._writing is not None:
            done, _ = await asyncio.wait((self._writing,), timeout=_CLOSE_S)
            if not done:
                self._writing.cancel()
        try:
            for told, _reply in self._waiting:
                kept = replace(told, conversations=masked(told.conversations))
                leftover_io.append(self.leftover_fd, encode_message(kept))
        except OSError as error:
            lost = sum(len(told.entries) for told, _reply in self._waiting)
            _log.error("usage is lost: the store cannot be written", requests=lost, problem=error.strerror)
        if self._leftover is not None:
            await asyncio.wait((self._leftover,), timeout=_CLOSE_S)
        await self._in_thread(self._store.close)
        os.close(self.leftover_fd)
        self._thread.shutdown(wait=False)

    # AccountsControl, for the admin socket.

    async def change(self, make: Make) -> tuple[Made, Sequence[int]]:
        """One after another, each seeing what the one before has written."""
        async with self._changing:
            made = make(self.registry, time.time())
            changed = self.registry.differences(made.change)
            await self._in_thread(self._store.put, made.change)
            self.registry.take(made.change)
            self._number += 1
            number = self._number
            self._workers.tell(AccountsTold(number, made.change))
        if changed or made.change.gone:
            _log.info(
                "accounts changed",
                key=made.account.id if made.account is not None else "",
                tenants=sorted(
                    {one.tenant for one in made.change.accounts} | {one.name for one in made.change.tenants}
                ),
                changed=changed,
                **({"gone": made.change.gone} if made.change.gone else {}),
            )
        return made, await self._workers.accounts_taken(number, _KNOWN_S)

    async def usage(self, by: Sequence[str], since: str, until: str, tenant: str) -> list[dict[str, Any]]:
        """From the store."""
        return await self._in_thread(self._store.usage, by, since, until, tenant)

    def used(self, model: str) -> list[Used]:
        """Who has used it in the last minute."""
        names = {one.id: one.name for one in self.registry.accounts.values()}
        return self._lately.of(model, names, time.monotonic())

    def trouble(self) -> str:
        """What is wrong with the store, in words; empty: nothing is."""
        if not self._problem:
            return ""
        since_s = time.monotonic() - self._failing_at
        entries = sum(len(told.entries) for told, _reply in self._waiting)
        return f"usage waits since {since_s:.0f} s ago, {entries} entries here and more in workers: {self._problem}"

    # What workers have used.

    def take(self, told: UsageTold, reply: Callable[[Message], None]) -> None:
        """Write a worker's batch, then `reply` that it is written."""
        if told.dropped:
            _log.warning("usage was dropped: the store is slow, or cannot be written", entries=told.dropped)
        self._waiting.append((told, reply))
        if self._writing is None or self._writing.done():
            self._writing = self._loop.create_task(self._write())

    async def _write(self) -> None:
        while self._waiting:
            told, reply = self._waiting[0]
            try:
                sums = await self._in_thread(self._add, told)
            except StoreError as error:
                if not self._failing:
                    self._failing, self._failing_at, self._problem = True, time.monotonic(), str(error)
                    _log.error("accounts store cannot be written: usage waits", problem=str(error))
                if self._closing:
                    return
                await asyncio.sleep(_RETRY_S)
                continue
            except Exception:  # it would fail again and again, and all the others wait behind it
                _log.exception("usage is lost", requests=len(told.entries))
                sums = {}
            if self._failing:
                self._failing, self._problem = False, ""
                _log.info("accounts store is written again")
            self._waiting.popleft()
            self._turn()
            self.spending.add(sums)
            self._lately.add(sums, time.monotonic())
            reply(UsageTaken(told.number))

    def _add(self, told: UsageTold) -> dict[Key, Sum]:
        now = time.time()
        since = now - float(self._settings.retention)
        teams = self.registry.team_of_key
        return self._store.add(told.mark, told.number, told.entries, teams, now, since, told.conversations)

    def _tell_spent(self) -> None:
        self._beat = self._loop.call_later(float(self._settings.flush), self._tell_spent)
        self._turn()
        if os.fstat(self.leftover_fd).st_size and (self._leftover is None or self._leftover.done()):
            self._leftover = self._loop.create_task(self._look_for_leftover())
        spent = self.spending.told()
        if spent is not None:
            self._workers.tell(AccountsTold(self._number, None, spent))

    def _open_leftover(self) -> int:
        """And take what is there, so that the first worker knows what was spent. Raises StartError."""
        path = leftover_io.leftover_path(self._settings.store)
        try:
            fd = leftover_io.open_leftover(self._settings.store)
        except OSError as error:
            self._store.close()
            raise StartError(f"accounts.store: {path} cannot be opened: {error.strerror}", EXIT_CONFIG) from error
        try:
            for sums in self._add_leftover(fd):
                self.spending.add(sums)
        except (OSError, StoreError) as error:
            os.close(fd)
            self._store.close()
            raise StartError(f"accounts.store: {path}: {error}", EXIT_CONFIG) from error
        return fd

    def _add_leftover(self, fd: int) -> list[dict[Key, Sum]]:
        added: list[dict[Key, Sum]] = []
        broken = 0

        def use(payload: bytes) -> None:
            nonlocal broken
            try:
                told = decode_from_worker(payload)
            except msgspec.DecodeError:
                broken += 1
            else:
                if isinstance(told, UsageTold):
                    added.append(self._add(told))

        broken += leftover_io.take(fd, use) > 0
        if added or broken:
            requests = sum(one.requests for sums in added for one in sums.values())
            _log.info("usage of the last run's workers is stored", requests=requests, broken=broken)
        return added

    async def _look_for_leftover(self) -> None:
        try:
            for sums in await self._in_thread(self._add_leftover, self.leftover_fd):
                self.spending.add(sums)
        except (OSError, StoreError) as error:
            _log.error("usage of the last run's workers waits", problem=str(error))

    def _turn(self) -> None:
        self.spending.turn(day_of(time.time()))

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await self._loop.run_in_executor(self._thread, function, *arguments)
