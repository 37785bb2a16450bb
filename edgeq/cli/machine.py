"""Does the machine grant what a configuration asks of it? Facts in, shortfalls out.

Nothing here is an error of the configuration: edgeq serves, with less than was asked. What is compared, and why:

- `backlog` with net.core.somaxconn: listen(2) cuts without a word.
- descriptors with `max_connections` and the pools: each worker is a process with a limit of its own, and on a bad day
  the kernel gives all connections to one of them.
- connections to one address and port with net.ipv4.ip_local_port_range: each needs a port of ours.
- net.ipv4.tcp_migrate_req, for several workers: should a socket close with a handshake in flight, the connection moves
  to another worker rather than being reset. Only an advice, because edgeq empties a socket before it closes it.
Source: listen(2), tcp(7), the kernel's Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from edgeq.config.address import parse_listen
from edgeq.config.lines import Path
from edgeq.config.schema import Config
from edgeq.upstream.endpoint import parse_endpoint

SYSCTL_FILE: Final = "/etc/sysctl.d/70-edgeq.conf"
"""After what `make install` brings (60-edgeq.conf), and not in its place, as a file of the same name would be."""
UNIT_FILE: Final = "/etc/systemd/system/edgeq.service.d/local.conf"
UNIT_DESCRIPTORS: Final = 1 << 20
"""LimitNOFILE of the unit that we ship: a line for it must not grant less."""
_SPARE_DESCRIPTORS: Final = 64
"""Of a process itself: listeners, the board, bells, logs, lookups."""
_LAST_PORT: Final = 65535
_FIRST_PORT: Final = 1024
"""Below are ports that need a privilege."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What it grants; None where it does not tell."""

    somaxconn: int | None
    descriptors: int | None
    """To one process, at most."""
    ports: tuple[int, int] | None
    """First and last."""
    migrates: bool | None
    cores: int


@dataclass(frozen=True, slots=True)
class Shortfall:
    """One setting that stands below what is asked."""

    setting: str
    path: Path
    """The key that asks most."""
    needed: int
    granted: int
    message: str
    file: str
    """Where the line goes that cures it; of a unit, into its section [Service]."""
    line: str
    is_advice: bool = False


def shortfalls(config: Config, machine: Machine) -> list[Shortfall]:
    """Everything that is granted less of than `config` asks."""
    found = (
        _backlog(config, machine),
        _descriptors(config, machine),
        *_ports(config, machine),
        _migration(config, machine),
    )
    return [one for one in found if one is not None]


def _backlog(config: Config, machine: Machine) -> Shortfall | None:
    number, listener = max(enumerate(config.listener), key=lambda pair: pair[1].backlog)
    granted = machine.somaxconn
    if granted is None or listener.backlog <= granted:
        return None
    return Shortfall(
        "net.core.somaxconn",
        ("listener", number, "backlog"),
        listener.backlog,
        granted,
        f"{listener.backlog} connections shall wait, the kernel lets {granted}",
        SYSCTL_FILE,
        f"net.core.somaxconn = {listener.backlog}",
    )


def _descriptors(config: Config, machine: Machine) -> Shortfall | None:
    workers = config.server.workers or machine.cores
    downstream = sum(one.max_connections for one in config.listener)
    shares = [
        len(one.endpoints) * -(-one.pool.max_connections // workers) for one in config.upstream.values()
    ]  # a pool's limit is the machine's, a worker takes its share, rounded up
    needed = downstream + sum(shares) + _SPARE_DESCRIPTORS
    granted = machine.descriptors
    if granted is None or needed <= granted:
        return None
    number, _ = max(enumerate(config.listener), key=lambda pair: pair[1].max_connections)
    said = f" (as a service {UNIT_DESCRIPTORS})" if needed <= UNIT_DESCRIPTORS else ""
    return Shortfall(
        "RLIMIT_NOFILE",
        ("listener", number, "max_connections"),
        needed,
        granted,
        f"a worker may need {needed} descriptors (clients {downstream}, pools {sum(shares)}),"
        f" a process that is started here has {granted}" + said,
        UNIT_FILE,
        f"LimitNOFILE={max(needed, UNIT_DESCRIPTORS)}",
    )


def _ports(config: Config, machine: Machine) -> list[Shortfall]:
    if machine.ports is None:
        return []
    first, last = machine.ports
    granted = last - first + 1
    asked: dict[tuple[str, int], int] = defaultdict(int)
    paths: dict[tuple[str, int], Path] = {}
    for name, upstream in config.upstream.items():
        for url in upstream.weights():
            spec = parse_endpoint(url)
            if spec.scheme != "unix":
                asked[spec.host, spec.port] += upstream.pool.max_connections
                paths.setdefault((spec.host, spec.port), ("upstream", name, "pool", "max_connections"))
    place, needed = max(asked.items(), key=lambda pair: pair[1], default=(("", 0), 0))
    if needed <= granted:
        return []
    possible = _LAST_PORT - _FIRST_PORT + 1
    message = f"{needed} connections to {place[0]} need a local port each, there are {granted}"
    if needed > possible:
        message += f"; more than {possible} are not possible to one address"
    first = max(_FIRST_PORT, min(first, _LAST_PORT - needed + 1))
    line = f"net.ipv4.ip_local_port_range = {first} {_LAST_PORT}"
    return [Shortfall("net.ipv4.ip_local_port_range", paths[place], needed, granted, message, SYSCTL_FILE, line)]


def _migration(config: Config, machine: Machine) -> Shortfall | None:
    workers = config.server.workers or machine.cores
    tcp = [number for number, one in enumerate(config.listener) if parse_listen(one.address).family != "unix"]
    if machine.migrates is not False or workers < 2 or not tcp:
        return None
    return Shortfall(
        "net.ipv4.tcp_migrate_req",
        ("listener", tcp[0], "address"),
        1,
        0,
        "a handshake in flight when a worker's socket closes is reset; it could move to another worker",
        SYSCTL_FILE,
        "net.ipv4.tcp_migrate_req = 1",
        is_advice=True,
    )
