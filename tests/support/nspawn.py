"""A machine of its own, with a real systemd as its first process: systemd-nspawn over an overlay of the root.

Nothing of the host is changed: what is written goes into memory, the network is a namespace with loopback only, and
units that would touch a network or run by the clock are masked. Where a machine cannot do it, `boot` says why.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from tests.support import kernel
from tests.support.gateway import ROOT
from tests.support.namespace import call_in
from tests.support.supervised import wait_for

T = TypeVar("T")
_BOOT_S: Final = 90.0
_MASKED: Final = (
    "timers.target",
    "network-online.target",
    "networking.service",
    "NetworkManager.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
)


class NoMachineError(Exception):
    """It cannot be booted here, for this reason."""


class Machine:
    """A booted one."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self.leader = leader

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A program in the machine, to its end."""
        command = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-p", "-n", "-C", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)

    def must(self, *words: str) -> str:
        """The same, and it succeeds. Returns what it printed."""
        done = self.run(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}\n{self.journal()}"
        return done.stdout

    def show(self, unit: str, key: str) -> str:
        """A property of a unit."""
        return self.must("systemctl", "show", unit, "-p", key, "--value").strip()

    def journal(self, unit: str = "edgeq") -> str:
        """What it said lately."""
        return self.run("journalctl", "-u", unit, "--no-pager", "-n", "60", "-o", "cat").stdout

    def call(self, function: Callable[[], T]) -> T:
        """Call it in the machine's network; threads that it starts stay there."""
        return call_in(f"/proc/{self.leader}/ns/net", function)

    def write(self, path: str, text: str) -> None:
        """A file in the machine."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def python() -> str:
    """A Python that a service may run: not one below a home directory, which the unit cannot see."""
    usual = os.path.realpath(sys.executable)
    return "/usr/bin/python3" if usual.startswith(("/root/", "/home/")) else usual


@contextlib.contextmanager
def boot(directory: Path) -> Iterator[Machine]:
    """A machine with edgeq installed by `make install`. Raises NoMachineError."""
    if os.geteuid() != 0:
        raise NoMachineError("only root can boot a machine")
    if shutil.which("systemd-nspawn") is None:
        raise NoMachineError("systemd-nspawn is not installed (Debian and Ubuntu: systemd-container)")
    with contextlib.ExitStack() as stack:
        _mount(stack, "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(directory))
        upper, work, root = (directory / name for name in ("upper", "work", "root"))
        for one in (upper, work, root):
            one.mkdir()
        _mount(stack, "-t", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", "overlay", str(root))
        for unit in _MASKED:
            path = root / "etc/systemd/system" / unit
            path.unlink(missing_ok=True)
            path.symlink_to("/dev/null")
        make("install", directory, root)
        yield _boot(stack, directory, root)


def make(target: str, directory: Path, root: Path) -> None:
    """`make install` or `make uninstall` into the machine, interpreted: it is about the service, not its speed."""
    variables = {"PYTHON": python(), "INSTALLER": str(directory / "installer"), "DESTDIR": str(root)}
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("EDGEQ_", "PYTHON"))}
    done = subprocess.run(
        ["make", "-C", str(ROOT), target, "EDGEQ_PURE=1", *(f"{key}={value}" for key, value in variables.items())],
        env={**environment, "EDGEQ_PURE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _mount(stack: contextlib.ExitStack, *words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        raise NoMachineError(f"cannot mount {words[1]}: {done.stderr.strip()}")
    stack.callback(subprocess.run, ["umount", "-l", words[-1]], check=True, timeout=30)


def _boot(stack: contextlib.ExitStack, directory: Path, root: Path) -> Machine:
    name = f"edgeq-test-{os.getpid()}"
    options = ["-D", str(root), "-M", name, "--register=no", "--keep-unit", "--private-network", "--link-journal=no"]
    console = directory / "console"
    with console.open("wb") as output:
        nspawn = subprocess.Popen(
            ["systemd-nspawn", *options, "-b", "systemd.unit=basic.target"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    stack.callback(_end, nspawn)

    def leader() -> int:
        return next(iter(kernel.children(nspawn.pid)), 0)

    def is_up() -> bool:
        machine = Machine(root, leader())
        return bool(machine.leader) and machine.run("systemctl", "is-active", "basic.target").returncode == 0

    try:
        wait_for("the machine", lambda: nspawn.poll() is not None or is_up(), _BOOT_S)
    except AssertionError:
        raise NoMachineError(f"not up in {_BOOT_S:.0f} s: {console.read_text(errors='replace')[-600:]}") from None
    if nspawn.poll() is not None:
        raise NoMachineError(f"systemd-nspawn ended: {console.read_text(errors='replace')[-600:]}")
    return Machine(root, leader())


def _end(nspawn: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if nspawn.poll() is None:
            nspawn.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                nspawn.wait(20)
