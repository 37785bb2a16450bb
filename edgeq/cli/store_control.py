"""Commands of accounts on the store itself, without a supervisor: the same handlers as behind the admin socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

from edgeq.admin.accounts import Make
from edgeq.admin.command import Answer, Command
from edgeq.admin.control import Client, Control
from edgeq.config.scarce import Offered
from edgeq.llm.registry import Made, Registry
from edgeq.llm.store_io import Store
from edgeq.llm.sums import day_of


class StoreControl:
    """The `AccountsControl` of an open store."""

    models: Mapping[str, Offered] = {}
    """Nobody says for which configuration it is."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.registry = Registry(store.snapshot())
        self.spending = store.spending(day_of(time.time()))

    @property
    def accounts(self) -> StoreControl:
        """As `Control` has it."""
        return self

    async def change(self, make: Make) -> tuple[Made, Sequence[int]]:
        """Nobody has to be told: whoever opens the store next will see it."""
        made = make(self.registry, time.time())
        self._store.put(made.change)
        self.registry.take(made.change)
        return made, ()

    def trouble(self) -> str:
        """Nobody waits for it."""
        return ""

    async def usage(self, by: Sequence[str], since: str, until: str, tenant: str) -> list[dict[str, Any]]:
        """As `Store.usage`."""
        return self._store.usage(by, since, until, tenant)


def answer(path: str, command: Command, values: dict[str, str]) -> Answer:
    """What a command says of the store at `path`. Raises StoreError, also for a change while an edgeq has it open."""
    store = Store(path, writes=command.method != "GET")
    try:
        control = cast(Control, StoreControl(store))  # these commands ask for nothing else
        return asyncio.run(_run(command, control, values))
    finally:
        store.close()


async def _run(command: Command, control: Control, values: dict[str, str]) -> Answer:
    return await command.run(control, values, Client())
