"""A network namespace of a test's own, with nothing in it but loopback; needs root and the ip command."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import pytest

T = TypeVar("T")
_CLONE_NEWNET: Final = 0x40000000


class Namespace:
    """What runs in it: programs by `command`, threads of this process by `call`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, *words: str) -> list[str]:
        """A program in the namespace."""
        return ["ip", "netns", "exec", self.name, *words]

    def run(self, *words: str) -> None:
        """Run a program in the namespace to its end."""
        subprocess.run(self.command(*words), check=True, capture_output=True, timeout=30)

    def call(self, function: Callable[[], T]) -> T:
        """Call it in a thread in the namespace; sockets that it makes, and threads that it starts, stay there."""
        return call_in(f"/run/netns/{self.name}", function)


def call_in(path: str, function: Callable[[], T]) -> T:
    """Call it in a thread in the network namespace that a file stands for (network_namespaces(7))."""
    results: list[T] = []
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            finally:
                os.close(fd)
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join(30)
    if errors:
        raise errors[0]
    return results[0]


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """A namespace for this test; skips it where there can be none."""
    made = Namespace(f"edgeq-test-{os.getpid()}")
    try:
        subprocess.run(["ip", "netns", "add", made.name], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a network namespace needs root and the ip command")
    try:
        made.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", made.name], check=True, capture_output=True, timeout=30)
