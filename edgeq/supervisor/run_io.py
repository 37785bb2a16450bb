"""`serve`: the whole gateway in one call."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import uvloop

from edgeq.config.live import Live
from edgeq.supervisor import process_io
from edgeq.supervisor.launch import Launch
from edgeq.supervisor.supervisor_io import Supervisor
from edgeq.worker.control_io import configure_log


def serve(
    live: Live,
    pidfile: str | None = None,
    launch: Launch | None = None,
    serving: Callable[[], None] | None = None,
) -> int:
    """Run the supervisor until a signal ends it. Returns the exit code.

    `serving()` is called once the workers serve.
    Raises StartError if the gateway cannot start.
    """
    configure_log(live.config)
    process_io.set_name("edgeq")
    process_io.adopt_orphans()
    process_io.let_workers_go_first()
    process_io.raise_descriptor_limit()
    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(_run(live, pidfile, launch or Launch(), serving))
    finally:
        loop.close()


async def _run(
    live: Live,
    pidfile: str | None,
    launch: Launch,
    serving: Callable[[], None] | None,
) -> int:
    loop = asyncio.get_running_loop()
    supervisor = Supervisor(loop, live, pidfile, launch, serving)
    handlers = {
        signal.SIGTERM: supervisor.on_stop_signal,
        signal.SIGINT: supervisor.on_stop_signal,
        signal.SIGHUP: supervisor.on_reload_signal,
        signal.SIGUSR1: supervisor.on_reopen_signal,
    }
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)  # what came since `edgeq serve` blocked it
    return await supervisor.run()
