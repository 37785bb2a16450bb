"""A timer of the kernel as a descriptor (timerfd_create(2)), accurate to some tens of microseconds.

Event loops and epoll_wait(2) count in milliseconds: an upstream of 20 ms would lose five per cent of its capacity.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time

TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME = os.O_NONBLOCK, os.O_CLOEXEC, 1
_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Timer:
    """Its descriptor `fd` becomes readable at the instant that was set last; instants are those of time.monotonic()."""

    __slots__ = ("_set_for", "_spec", "fd")

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _Itimerspec()
        self._set_for: float | None = None

    def set(self, at: float | None) -> None:
        """Wake at that instant, at once if it has passed, or never (None)."""
        if at == self._set_for:
            return
        self._set_for = at
        # All zero would disarm, so time 0 is not used for "at once".
        nanoseconds = 0 if at is None else max(1, int(at * 1e9))
        self._spec.value.seconds, self._spec.value.nanoseconds = divmod(nanoseconds, 1_000_000_000)
        if _libc.timerfd_settime(self.fd, TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        """Call when the descriptor was readable, before the next `set`."""
        self._set_for = None
        with contextlib.suppress(BlockingIOError):  # set anew since
            os.read(self.fd, 8)
