"""Which memory limit holds for a worker: that of any control group around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeq.worker.readings_io import memory_limit

V2 = "memory.max"
V1 = "memory/{}memory.limit_in_bytes"
MIB = 1 << 20


@pytest.mark.parametrize(
    ("own", "files", "limit"),
    [
        ("0::/system.slice/edgeq.service", {f"system.slice/edgeq.service/{V2}": f"{3 * MIB}"}, 3 * MIB),
        (
            "0::/a.slice/b.service",
            {f"a.slice/b.service/{V2}": "max", f"a.slice/{V2}": f"{2 * MIB}", f"other/{V2}": f"{MIB}"},
            2 * MIB,
        ),
        ("0::/", {V2: f"{5 * MIB}"}, 5 * MIB),
        ("0::/of/the/host", {V2: f"{5 * MIB}"}, 5 * MIB),
        (
            "5:devices:/\n4:cpu,memory:/edgeq\n0::/",
            {V1.format("edgeq/"): f"{7 * MIB}", V1.format(""): "9223372036854771712"},
            7 * MIB,
        ),
    ],
    ids=["service", "slice", "container", "container that sees names of the host", "v1"],
)
def test_the_limit_of_a_group(own: str, files: dict[str, str], limit: int, tmp_path: Path) -> None:
    """The lowest of its own and those around it."""
    (tmp_path / "own").write_text(f"{own}\n")
    for name, text in files.items():
        file = tmp_path / "root" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    assert memory_limit(tmp_path / "own", tmp_path / "root") == (limit, "the control group")


@pytest.mark.parametrize("text", ["max", "9223372036854771712", "", None])
def test_without_a_limit_it_is_the_machine(text: str | None, tmp_path: Path) -> None:
    """Also where nothing can be read, or what a group may have is more than there is."""
    if text is not None:
        (tmp_path / "own").write_text("0::/\n")
        (tmp_path / V2).write_text(f"{text}\n")
    found = memory_limit(tmp_path / "own", tmp_path)
    assert found.whose == "the machine"
    assert found.size_bytes > 16 * MIB
