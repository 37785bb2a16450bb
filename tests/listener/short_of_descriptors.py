"""A process with few descriptors left: prints its port, serves until its stdin ends, then prints its counts.

Usage: python -m tests.listener.short_of_descriptors DESCRIPTORS
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys

import uvloop

from edgeq.config.schema import Listener
from tests.listener.harness import Site


async def main(descriptors: int) -> None:
    """Serve with `descriptors` more than are open now."""
    site = Site(Listener(address="test"))
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    site.acceptor.start()
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + descriptors, hard))
    sys.stdout.write(f"{site.address[1]}\n")
    sys.stdout.flush()
    await ended.wait()
    loop.remove_reader(sys.stdin.fileno())
    sys.stdout.write(json.dumps(site.acceptor.snapshot() | {"refused": site.refused()}))
    site.acceptor.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1])))
