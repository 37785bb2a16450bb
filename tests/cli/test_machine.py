"""What a configuration asks and a machine grants: each rule at its edge."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeq.cli.machine import SYSCTL_FILE, UNIT_DESCRIPTORS, Machine, Shortfall, shortfalls
from edgeq.cli.machine_io import read_machine
from edgeq.config.schema import Config, Listener, Server, Upstream, UpstreamPool
from tests.support.gateway import ROOT


def config(
    backlog: int = 100, connections: int = 100, pool: int = 100, workers: int = 2, urls: tuple[str, ...] = ()
) -> Config:
    """One listener, and an upstream for each URL."""
    return Config(
        server=Server(workers=workers),
        listener=(Listener(address="0.0.0.0:80", backlog=backlog, max_connections=connections),),
        upstream={
            f"u{at}": Upstream(endpoints=(url,), pool=UpstreamPool(max_connections=pool))
            for at, url in enumerate(urls or ("http://10.0.0.1:80",))
        },
    )


def found(asked: Config, **granted: object) -> dict[str, Shortfall]:
    """Shortfalls by setting, on a machine that grants all else."""
    facts = {"somaxconn": 65535, "descriptors": 1 << 20, "ports": (1024, 65535), "migrates": True, "cores": 2}
    machine = Machine(**{**facts, **granted})  # type: ignore[arg-type]
    return {one.setting: one for one in shortfalls(asked, machine)}


def test_enough_is_enough() -> None:
    """Just what is asked is no shortfall."""
    granted = {"somaxconn": 100, "descriptors": 100 + 50 + 64, "ports": (2000, 2099)}
    assert found(config(), **granted) == {}
    for key, less in (("somaxconn", 99), ("descriptors", 213), ("ports", (2000, 2098))):
        assert len(found(config(), **{**granted, key: less})) == 1


def test_what_the_machine_does_not_tell_is_no_shortfall() -> None:
    """In a container some of it cannot be read."""
    assert found(config(), somaxconn=None, descriptors=None, ports=None, migrates=None) == {}


def test_descriptors_of_one_worker() -> None:
    """All clients may come to one worker; of a pool it has its share. 0 workers: one for each core."""
    short = found(config(connections=1000, pool=101, workers=0), descriptors=10, cores=4)["RLIMIT_NOFILE"]
    assert short.needed == 1000 + 26 + 64
    assert short.line == f"LimitNOFILE={UNIT_DESCRIPTORS}"
    many = found(config(connections=2_000_000), descriptors=1 << 20)["RLIMIT_NOFILE"]
    assert many.line == f"LimitNOFILE={2_000_000 + 50 + 64}"


def test_what_shall_be_written_takes_nothing_back() -> None:
    """A file of the same name in /etc would stand instead of the one that `make install` brings, and one before it
    would not count; a line for the unit must not grant less than the unit does."""
    installed = re.findall(r"sysctl\.d/(\S+\.conf)", (ROOT / "Makefile").read_text())
    assert installed
    assert all(name < Path(SYSCTL_FILE).name for name in installed)
    assert f"\nLimitNOFILE={UNIT_DESCRIPTORS}\n" in (ROOT / "systemd/edgeq.service").read_text()


def test_ports_to_one_address_add_up() -> None:
    """Two upstreams with the same endpoint share its ports; other ports, other hosts and Unix sockets do not."""
    same = ("http://10.0.0.1:80", "http://10.0.0.1:80", "http://10.0.0.1:81", "http://10.0.0.2:80", "unix:/s")
    short = found(config(pool=100, urls=same), ports=(60000, 60149))["net.ipv4.ip_local_port_range"]
    assert (short.needed, short.granted, short.path) == (200, 150, ("upstream", "u0", "pool", "max_connections"))
    assert short.line == "net.ipv4.ip_local_port_range = 60000 65535"
    assert found(config(pool=100, urls=("unix:/s",)), ports=(60000, 60000)) == {}


def test_more_ports_than_there_are() -> None:
    """It is said, and the best line is given."""
    short = found(config(pool=70000))["net.ipv4.ip_local_port_range"]
    assert "more than 64512 are not possible to one address" in short.message
    assert short.line == "net.ipv4.ip_local_port_range = 1024 65535"


@pytest.mark.parametrize(("workers", "cores", "advised"), [(1, 8, False), (2, 1, True), (0, 1, False), (0, 2, True)])
def test_migration_is_for_several_workers(workers: int, cores: int, advised: bool) -> None:
    """Alone, there is nobody to move to."""
    short = found(config(workers=workers, connections=1), migrates=False, cores=cores)
    assert bool(short) is advised
    assert all(one.is_advice for one in short.values())


def test_this_machine_can_be_read() -> None:
    """On any Linux at least its descriptors and its cores."""
    machine = read_machine()
    assert machine.cores >= 1
    assert machine.descriptors is None or machine.descriptors > 0
    assert machine.somaxconn is None or machine.somaxconn > 0
