"""Reads what this machine grants. Nothing is changed, and what cannot be read is None."""

from __future__ import annotations

import resource
from pathlib import Path

from edgeq.cli.machine import Machine
from edgeq.supervisor.process_io import usable_cores
from edgeq.supervisor.sockets_io import kernel_backlog_limit


def read_machine() -> Machine:
    """As a process that is started from here would find it; a unit may grant other numbers of descriptors."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # to which the supervisor raises its own
    ports = _numbers("ip_local_port_range")
    migrates = _numbers("tcp_migrate_req")
    return Machine(
        somaxconn=kernel_backlog_limit(),
        descriptors=None if hard == resource.RLIM_INFINITY else hard,
        ports=(ports[0], ports[1]) if len(ports) == 2 else None,
        migrates=bool(migrates[0]) if migrates else None,
        cores=usable_cores(),
    )


def _numbers(name: str) -> list[int]:
    """Of a setting in net.ipv4, which holds for IPv6 as well."""
    try:
        return [int(word) for word in Path("/proc/sys/net/ipv4", name).read_text().split()]
    except (OSError, ValueError):
        return []
