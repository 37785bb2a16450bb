"""Many SIGHUPs at once."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from edgeq.config.schema import Config, Listener, Upstream
from edgeq.supervisor.launch import Launch
from edgeq.supervisor.supervisor_io import Supervisor


def test_signals_during_a_reload_are_one_more_reload() -> None:
    """A reload that has not begun reads the file after all of them: a thousand need no queue of a thousand."""

    def load() -> NoReturn:
        raise AssertionError("nothing runs here that could be reloaded")

    async def scenario() -> None:
        config = Config(listener=(Listener(address="127.0.0.1:0"),), upstream={"u": Upstream(endpoints=())})
        supervisor = Supervisor(asyncio.get_running_loop(), config, load, None, Launch())
        before = len(asyncio.all_tasks())
        for _ in range(1000):
            supervisor.on_reload_signal()
        waiting = asyncio.all_tasks() - {asyncio.current_task()}
        assert len(asyncio.all_tasks()) - before == 2
        await asyncio.wait(waiting)

    asyncio.run(scenario())
