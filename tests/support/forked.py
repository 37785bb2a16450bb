"""Processes that are forked from a test, play a part and send back what came of it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

TIMEOUT_S = 60.0
"""Until a child that hangs fails the test."""


class Child:
    """A forked process that runs `play` and sends its result as JSON."""

    def __init__(self, play: Callable[[], Any]) -> None:
        self.result_fd, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                signal.alarm(int(TIMEOUT_S))
                payload = json.dumps(play()).encode()
                with os.fdopen(theirs, "wb") as out:
                    out.write(payload)
                code = 0
            finally:
                os._exit(code)
        os.close(theirs)

    def result(self) -> Any:
        with os.fdopen(self.result_fd, "rb") as source:
            data = source.read()
        _, status = os.waitpid(self.pid, 0)
        assert status == 0
        return json.loads(data)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.result_fd)
