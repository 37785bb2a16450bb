"""What a gateway is made of and how patient its supervisor is; tests put other parts in."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Launch:
    """Parts as "module:name", loaded in the spawner; times in seconds."""

    app: str = "edgeq.worker.app:App"
    loop: str = "edgeq.worker.loop_io:new_loop"
    handshake_grace_s: float = 0.2
    """After the last new connection entered a shard, until its handshake must be complete."""
    start_timeout_s: float = 30.0
    """From the fork to Ready."""
    apply_timeout_s: float = 10.0
    """Until every worker confirmed a new configuration."""
    change_timeout_s: float = 1.0
    """The same for a live change; who has not by then is told of, and takes it when it goes on."""
    retire_timeout_s: float = 5.0
    """Until a worker has emptied its accept queues."""
    kill_margin_s: float = 2.0
    """After the drain timeout, until a worker that is still there is killed."""
    ticket_life_s: float = 4 * 3600.0
    """Of the secret behind TLS session tickets (tickets_io.py): twice the life of a ticket."""


def load_part(spec: str) -> Any:
    """Import "module:name". Raises ImportError or AttributeError."""
    module, _, name = spec.partition(":")
    return getattr(importlib.import_module(module), name)
