"""Which control group limits the memory of a worker, and what is used of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.worker.readings_io import control_group

MIB = 1 << 20
NO_LIMIT = (1 << 63) - 4096


def group(directory: Path, **files: object) -> None:
    """A directory of /sys/fs/cgroup; names have _ for the dot after memory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("_", ".", 1)).write_text(f"{text}\n")


def of(tmp_path: Path, *lines: str) -> Path:
    """/proc/self/cgroup."""
    path = tmp_path / "groups"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_service_has_the_limit_of_its_own_group(tmp_path: Path) -> None:
    """The root has none; of the groups on the way the lowest limit is the one that ends it first."""
    root = tmp_path / "cgroup"
    service = root / "system.slice/edgeq.service"
    stat = f"anon {70 * MIB}\nsock {20 * MIB}\ninactive_file {6 * MIB}\nactive_file {4 * MIB}"
    group(root / "system.slice", memory_max="max")
    group(service, memory_max=150 * MIB, memory_current=100 * MIB, memory_stat=stat)
    groups = of(tmp_path, "0::/system.slice/edgeq.service")
    found = control_group(groups, root)
    assert found is not None
    assert (found.directory, found.limit_bytes, found.used_bytes()) == (service, 150 * MIB, 90 * MIB)
    group(root / "system.slice", memory_max=120 * MIB)
    found = control_group(groups, root)
    assert found is not None
    assert (found.directory, found.limit_bytes) == (root / "system.slice", 120 * MIB)
    assert found.used_bytes() == 0  # not told


@pytest.mark.parametrize("path", ["/docker/0123", "/"])
def test_cgroup_v1_and_a_container(tmp_path: Path, path: str) -> None:
    """A container sees its own group as the root, whatever it is called outside."""
    root = tmp_path / "cgroup"
    stat = f"inactive_file 1\ntotal_inactive_file {MIB}\ntotal_active_file {2 * MIB}"
    group(root / "memory", memory_limit_in_bytes=150 * MIB, memory_usage_in_bytes=100 * MIB, memory_stat=stat)
    found = control_group(of(tmp_path, "9:name=systemd:/x", f"4:memory,hugetlb:{path}", f"0::{path}"), root)
    assert found is not None
    assert (found.limit_bytes, found.used_bytes()) == (150 * MIB, 97 * MIB)
    group(root / "memory", memory_usage_in_bytes=50 * MIB)
    assert found.used_bytes() == 0, "far from the limit it is not worth adding up"


def test_without_a_limit_there_is_no_group(tmp_path: Path) -> None:
    """As on most machines; nor where nothing can be read."""
    root = tmp_path / "cgroup"
    group(root / "memory", memory_limit_in_bytes=NO_LIMIT)
    group(root / "user.slice", memory_max="max")
    assert control_group(of(tmp_path, "4:memory:/", "0::/user.slice"), root) is None
    assert control_group(tmp_path / "none", root) is None
