"""What a limit costs a request: nanoseconds for taking and giving back a permit, and for a turn in the queue.

    python -m benchmarks.micro_bulkhead [--count 200000] [--workers 4]

With workers the limit is that of a machine which has so many; nothing runs or waits at the others.

Prints the best of several rounds. Calls come from interpreted code, which adds some tens of nanoseconds to each that
the compiled callers in the gateway do not pay; the loop with empty calls shows about how much.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter_ns

from edgeq.admission import bulkhead as module
from edgeq.admission.bulkhead import Bulkhead
from edgeq.admission.ticket import OK, CallbackTicket
from edgeq.board.handover import Neighbours
from edgeq.board.layout import Board
from edgeq.board.resources import MachineWide, Resources


def nothing(*_: object) -> None:
    """A callback."""


def ticket(tenant: bytes) -> CallbackTicket:
    """One request."""
    made = CallbackTicket(0.0, nothing, nothing)
    made.tenant = tenant
    return made


def machine(workers: int) -> MachineWide:
    """The limit's cells in a machine of so many workers; 0: without a board."""
    if workers == 0:
        return MachineWide()
    board = Board.create(workers)
    board.assign_resources(["upstream/api"])
    board.use(workers - 1)
    return Resources(board, Neighbours(board, 0, nothing)).bind("upstream/api")


def free(count: int, workers: int) -> float:
    """A place is free: try_acquire and release."""
    bulkhead = Bulkhead("upstream/api", 16, 0.0, machine(workers))
    request = ticket(b"")
    now = 1.0
    begin = perf_counter_ns()
    for _ in range(count):
        bulkhead.try_acquire(request, now)
        bulkhead.release(request, now, OK)
    return (perf_counter_ns() - begin) / count


def loop(count: int) -> float:
    """The loop alone, with calls that do nothing."""
    request = ticket(b"")
    now = 1.0
    begin = perf_counter_ns()
    for _ in range(count):
        nothing(request, now)
        nothing(request, now, OK)
    return (perf_counter_ns() - begin) / count


def queued(count: int, tenants: int, workers: int) -> float:
    """All places are taken: offer, and release of one whose place it gets."""
    bulkhead = Bulkhead("upstream/api", 16, 0.0, machine(workers))
    bulkhead.configure("adaptive", 256, 1 << 30, 60.0)
    names = [b"tenant-%d" % number for number in range(tenants)] if tenants > 1 else [b""]
    waiting = [ticket(names[number % len(names)]) for number in range(128)]
    running = [ticket(b"") for _ in range(16)]
    now = 1.0
    for request in running:
        bulkhead.try_acquire(request, now)
    begin = perf_counter_ns()
    for number in range(count):
        request = waiting[number & 127]
        request.arrived_at = now
        bulkhead.offer(request, now)
        bulkhead.release(running[number & 15], now, OK)
        running[number & 15] = request
        now += 1e-5
    return (perf_counter_ns() - begin) / count


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()

    def best(measure: Callable[[int], float]) -> float:
        return min(measure(args.count) for _ in range(args.rounds))

    variant = "compiled" if module.__file__.endswith(".so") else "interpreted"
    workers = args.workers
    base = best(loop)
    print(f"{variant}: two empty calls and the loop {base:.0f} ns")
    taken = best(lambda count: free(count, workers))
    print(f"try_acquire + release, a place is free: {taken:.0f} ns, of it the loop {base:.0f}")
    print(f"offer + release with a waiter: {best(lambda count: queued(count, 1, workers)):.0f} ns")
    print(f"the same with 50 tenants: {best(lambda count: queued(count, 50, workers)):.0f} ns")


if __name__ == "__main__":
    main()
