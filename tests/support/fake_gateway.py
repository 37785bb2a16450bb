"""Run the real supervisor with `fake_app` in its workers: `python fake_gateway.py SETTINGS.json`.

The settings are read again at each reload: addresses, workers, node, admin, admin_mode, admin_group, drain_timeout,
backlog, stuck_after, stuck_restart, store and flush (of accounts); `problem` makes the configuration wrong.
`ticket_life_s` is read once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edgeq.config.base import Duration
from edgeq.config.schema import Config, Forward, Listener, Server, Stuck, Upstream
from edgeq.config.schema_llm import Accounts
from edgeq.errors import ConfigError, EdgeqError, Problem
from edgeq.supervisor import run_io
from edgeq.supervisor.launch import Launch
from tests.support.given import live


def load(path: Path) -> Config:
    """The configuration that the settings describe."""
    settings = json.loads(path.read_text())
    if settings.get("problem"):
        raise ConfigError([Problem(path.name, 1, "a.b", settings["problem"]), Problem(path.name, 2, "c", "and this")])
    return Config(
        listener=tuple(
            Listener(address=address, name=address, backlog=settings.get("backlog", 512))
            for address in settings["addresses"]
        ),
        upstream={"u": Upstream(endpoints=("http://127.0.0.1:9",))},
        server=Server(
            workers=settings.get("workers", 1),
            admin=settings.get("admin", ""),
            admin_mode=settings.get("admin_mode", "0660"),
            admin_group=settings.get("admin_group", ""),
            drain_timeout=Duration(settings.get("drain_timeout", 5)),
            user=settings.get("user", ""),
            stuck=Stuck(
                after=Duration(settings.get("stuck_after", 2)), restart=Duration(settings.get("stuck_restart", 10))
            ),
        ),
        accounts=Accounts(store=settings["store"], flush=Duration(settings["flush"])) if "store" in settings else None,
        forward=Forward(node=settings.get("node", "v1")),
    )


def main() -> int:
    path = Path(sys.argv[1])
    life_s = json.loads(path.read_text()).get("ticket_life_s", 3600)
    launch = Launch(
        app="tests.support.fake_app:FakeApp", loop="uvloop:new_event_loop", apply_timeout_s=5, ticket_life_s=life_s
    )
    try:
        return run_io.serve(live(lambda: load(path)), str(path) + ".pid", launch)
    except EdgeqError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
