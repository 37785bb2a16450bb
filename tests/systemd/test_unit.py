"""The unit that we ship: systemd understands it, and it agrees with what the supervisor does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeq.config.schema import Server
from edgeq.errors import EXIT_CONFIG, EXIT_USAGE
from edgeq.supervisor.launch import Launch

UNITS = Path(__file__).resolve().parents[2] / "systemd"
UNIT = UNITS / "edgeq.service"
SEVERAL = ("ExecReload", "SystemCallFilter")
"""Keys that add up."""


def settings() -> dict[str, str]:
    """Keys of all sections; none comes twice, but for those that add up."""
    found: dict[str, str] = {}
    for line in UNIT.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            assert key not in found or key in SEVERAL
            found[key] = value
    return found


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    """systemd-analyze, where there is one."""
    command = shutil.which("systemd-analyze")
    if command is None:
        pytest.skip("systemd-analyze is not installed (Debian and Ubuntu: systemd)")
    return subprocess.run([command, *words], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("unit", ["edgeq.service", "edgeq.socket"])
def test_systemd_understands_it(unit: str) -> None:
    """`systemd-analyze verify` has nothing to say: no unknown key, no program that is not there."""
    done = analyze("verify", "--man=no", str(UNITS / unit))
    about_us = [line for line in (done.stdout + done.stderr).splitlines() if "edgeq" in line]
    assert about_us == []
    assert done.returncode == 0, done.stderr


def test_it_is_confined() -> None:
    """1.5 or better, as systemd rates it (0 is best)."""
    done = analyze("security", "--offline=yes", "--no-pager", "--threshold=15", str(UNIT))
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_left_open_has_its_reason() -> None:
    """Whatever systemd counts against it stands in the unit, with why."""
    done = analyze("security", "--offline=yes", "--json=short", str(UNIT))
    told = UNIT.read_text().partition("What is left open:")[2].partition("\nAmbientCapabilities=")[0]
    for one in json.loads(done.stdout):
        if float(one["exposure"] or 0):
            found = re.search(r"(?<=~)(?:CAP_NET|AF_\w*)|\w+=(?!~)", one["name"])
            assert found is not None
            assert found[0] in told, one["name"]


def test_with_the_socket_unit_it_is_confined_further(tmp_path: Path) -> None:
    """The example's part for edgeq.socket brings 1.2, and systemd understands every line of the example that it may."""
    text = (UNITS / "example.conf").read_text()
    part = text[text.index("# --- with edgeq.socket") :].partition("\n\n")[0]
    lines = [line.removeprefix("#") for line in part.splitlines() if not line.startswith("# ")]
    assert "[Service]" in lines
    merged = UNIT.read_text().partition("[Install]")[0] + "\n".join(lines)
    (tmp_path / "edgeq.service").write_text(merged + "\n")
    done = analyze("security", "--offline=yes", "--no-pager", "--threshold=12", str(tmp_path / "edgeq.service"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_store_is_told_as_it_is() -> None:
    """systemd 252 does not say how much it keeps, so the unit must, and with the same number."""
    assert settings()["Environment"] == f"FDSTORE={settings()['FileDescriptorStoreMax']}"
    # Paths of Unix sockets must outlive a restart as the sockets do, and workers a crash.
    assert settings()["RuntimeDirectoryPreserve"] == "restart"
    assert settings()["KillMode"] == "process"


@pytest.mark.parametrize(("prefix", "is_found"), [("/usr", True), ("/usr/local", True), ("/opt/edge", False)])
def test_what_systemd_does_not_find_by_itself_is_said(prefix: str, is_found: bool) -> None:
    """It looks below two prefixes only: elsewhere the commands that `make install` prints have the files' names."""
    command = ["make", "-n", "-C", str(UNITS.parent), "install", f"PREFIX={prefix}"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    now = next(line for line in said.splitlines() if "systemd-sysusers" in line and "echo" in line)
    for name in ("lib/sysusers.d/edgeq.conf", "lib/tmpfiles.d/edgeq.conf", "lib/sysctl.d/60-edgeq.conf"):
        assert (f"{prefix}/{name}" in now) is not is_found
    assert (f"systemctl link {prefix}/lib/systemd/system/edgeq.service" in now) is not is_found


def test_the_user_is_made() -> None:
    """Who the unit names, sysusers.d makes."""
    made = [line.split()[1] for line in (UNITS / "edgeq.sysusers").read_text().splitlines() if line[:1] in ("u", "g")]
    assert made == [settings()["User"], settings()["SupplementaryGroups"]]


def test_it_waits_longer_than_a_drain() -> None:
    """With the default configuration the supervisor is never killed while it still drains."""
    launch = Launch()
    drain_s = float(Server().drain_timeout) + launch.handshake_grace_s + launch.kill_margin_s
    # A worker that is just starting, or whose accept queue cannot be emptied, is waited for before that.
    slowest_s = drain_s + 2 * launch.retire_timeout_s
    assert float(settings()["TimeoutStopSec"]) > slowest_s
    assert float(settings()["TimeoutStartSec"]) > launch.start_timeout_s


def test_what_needs_a_person_is_not_tried_again() -> None:
    """The exit codes for wrong usage and a wrong configuration, and no others, end the restarts."""
    assert settings()["RestartPreventExitStatus"].split() == [str(EXIT_USAGE), str(EXIT_CONFIG)]
    assert settings()["Restart"] == "on-failure"
