"""Many SIGHUPs at once."""

from __future__ import annotations

import asyncio

from edgeq.config.schema import Config, Listener, Upstream
from edgeq.supervisor.launch import Launch
from edgeq.supervisor.supervisor_io import Supervisor
from tests.support.given import live


def test_signals_during_a_reload_are_one_more_reload() -> None:
    """A reload that has not begun reads the file after all of them: a thousand need no queue of a thousand."""

    config = Config(listener=(Listener(address="127.0.0.1:0"),), upstream={"u": Upstream(endpoints=())})
    read = iter([config])  # once, at the start: nothing runs here that could be reloaded

    async def scenario() -> None:
        supervisor = Supervisor(asyncio.get_running_loop(), live(lambda: next(read)), None, Launch())
        before = len(asyncio.all_tasks())
        for _ in range(1000):
            supervisor.on_reload_signal()
        waiting = asyncio.all_tasks() - {asyncio.current_task()}
        assert len(asyncio.all_tasks()) - before == 2
        await asyncio.wait(waiting)

    asyncio.run(scenario())
