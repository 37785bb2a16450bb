"""The unit that we ship: systemd understands it, and it agrees with what the supervisor does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgeq.config.schema import Server
from edgeq.errors import EXIT_CONFIG, EXIT_USAGE
from edgeq.supervisor.launch import Launch

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "edgeq.service"


def settings() -> dict[str, str]:
    """Keys of all sections; none comes twice."""
    found: dict[str, str] = {}
    for line in UNIT.read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            assert key not in found
            found[key] = value
    return found


def test_systemd_understands_it() -> None:
    """`systemd-analyze verify` has nothing to say: no unknown key, no program that is not there."""
    command = shutil.which("systemd-analyze")
    if command is None:
        pytest.skip("systemd-analyze is not installed (Debian and Ubuntu: systemd)")
    done = subprocess.run([command, "verify", "--man=no", str(UNIT)], capture_output=True, text=True, timeout=60)
    about_us = [line for line in (done.stdout + done.stderr).splitlines() if "edgeq" in line]
    assert about_us == []
    assert done.returncode == 0, done.stderr


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
