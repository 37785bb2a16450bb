"""Many readers that stop reading cost bounded memory, the kernel's included.

100 readers at 1 KiB/s make common gateways pull the whole of each answer into buffers that nobody sees. Here each
reader may cost its send buffer, the upstream connection's receive buffer, and one read in between.
"""

from __future__ import annotations

import contextlib
import os
import threading

import pytest

from tests.support import kernel
from tests.support.bench import Bench, bench, head
from tests.support.gateway import Settings
from tests.support.scripted_upstream import SeenRequest, UpstreamConnection, answer

ANSWER_BYTES = 8 * 1024 * 1024
# Kernel buffers count their overhead too, which is at most as large as the data.
PULLED_PER_READER_BYTES = 2 * 1024 * 1024
# The rest of one read, of which uvloop makes 256,000 bytes; between 200 and 220 KiB were seen.
PROCESS_PER_READER_BYTES = 256_000


def _settled(running: Bench, readers: int) -> int:
    """Bytes that the gateway pulled from the upstream when nothing moves any more."""
    kernel.wait_until(lambda: len(running.upstream.requests) == readers, 60, "all requests at the upstream")
    before = -1
    quiet = threading.Event()
    while (now := running.upstream.sent_bytes) != before:
        before = now
        quiet.wait(0.7)
    return now


def _stop_reading(readers: int) -> None:
    body = b"m" * ANSWER_BYTES

    def handler(connection: UpstreamConnection, request: SeenRequest) -> None:
        connection.send(answer(body))

    # The upstream's own send buffer is small, so that what it sent is what the gateway's kernel took.
    with bench(Settings(write_s=300), send_buffer_bytes=64 * 1024) as running, contextlib.ExitStack() as stack:
        assert running.still_serves()
        workers = running.gateway.workers
        running.handle(handler)
        process_before = sum(kernel.private_memory_bytes(pid) for pid in workers)
        kernel_before = kernel.tcp_memory_bytes()
        for _ in range(readers):
            client = stack.enter_context(running.connect(timeout_s=30, receive_buffer_bytes=32 * 1024))
            client.send(head())
        pulled = _settled(running, readers)
        process = sum(kernel.private_memory_bytes(pid) for pid in workers) - process_before
        in_kernel = kernel.tcp_memory_bytes() - kernel_before
        told = (
            f"{readers} readers: pulled {pulled / readers / 1024:.0f} KiB each, "
            f"process {process / readers / 1024:.0f} KiB each, kernel {in_kernel / readers / 1024:.0f} KiB each"
        )
        assert pulled < readers * PULLED_PER_READER_BYTES, told
        assert process < readers * PROCESS_PER_READER_BYTES + 8 * 1024 * 1024, told


def test_200_readers_stop() -> None:
    """200 clients that ask for 8 MiB and never read."""
    _stop_reading(200)


@pytest.mark.skipif(os.environ.get("EDGEQ_SLOW", "0") in ("", "0"), reason="EDGEQ_SLOW=1 runs it: 1,000 connections")
def test_1000_readers_stop() -> None:
    """1,000 of them."""
    _stop_reading(1000)
