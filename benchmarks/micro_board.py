"""The board alone: what a request pays for being counted, in nanoseconds.

    python -m benchmarks.micro_board [--count 200000] [--workers 1 2 4 16]

Each figure is the best of some rounds, less an empty loop; the loop itself is interpreted, so some 25 ns of each figure
are the call from there, which compiled code does not pay.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import process_time
from typing import Any

from edgeq.board import resources
from edgeq.board.gcra_table import GcraTable
from edgeq.board.handover import Neighbours
from edgeq.board.histogram import Histogram
from edgeq.board.layout import Board
from edgeq.board.reading import read
from edgeq.board.resources import LAST, OK, Resources
from edgeq.worker.wheel import NEVER


def cost_ns(count: int, call: Callable[..., Any], *args: Any) -> float:
    """Of one call."""
    best = 1e9
    loop = range(count)
    for _ in range(5):
        begin = process_time()
        for _ in loop:
            pass
        middle = process_time()
        for _ in loop:
            call(*args)
        best = min(best, (process_time() - middle) - (middle - begin))
    return best / count * 1e9


def measure(workers: int, count: int) -> None:
    """One worker's view of a board with so many rows."""
    board = Board.create(max(workers, 1))
    board.assign_resources(["upstream/api"])
    for slot in range(workers):
        board.use(slot)
    worker = Resources(board, Neighbours(board, 0, lambda slot: None))
    cells = worker.bind("upstream/api")
    tenant = worker.bind_tenant("upstream/api", b"acme")
    for slot in range(1, workers):
        other = Resources(board, Neighbours(board, slot, lambda slot: None))
        other.bind("upstream/api").set_in_flight(3, 3)
        other.bind_tenant("upstream/api", b"acme").set_in_flight(2, 2)
    table = GcraTable(board, 0)

    def charge() -> None:
        table.get(77)
        table.charge(77, 1, 0)

    rows: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = [
        ("others_in_flight", cells.others_in_flight, ()),
        ("others_wait", cells.others_wait, ()),
        ("hand_over, nobody waits", cells.hand_over, (NEVER, 1.0)),
        ("tenant: others_in_flight", tenant.others_in_flight, ()),
        ("tenant: oldest_elsewhere", tenant.oldest_elsewhere, (LAST,)),
    ]
    if workers == 1:
        rows += [
            ("set_in_flight", cells.set_in_flight, (3, 3)),
            ("set_waiting", cells.set_waiting, (1, 100, 12345.678)),
            ("admitted at once", cells.admitted, (0.0,)),
            ("admitted after 3 ms", cells.admitted, (0.003,)),
            ("finished ok, 20 ms", cells.finished, (0.02, OK)),
            ("refused", cells.refused, ("queue_full",)),
            ("Histogram.record(20000)", Histogram().record, (20_000,)),
            ("Gcra get + charge", charge, ()),
        ]
    print(f"{workers} worker(s)")
    for name, call, args in rows:
        print(f"  {name:28} {cost_ns(count, call, *args):7.0f} ns")
    few = max(1, count // 1000)
    print(f"  {'tick with all dirty':28} {cost_ns(few, tick, worker, cells):7.0f} ns")
    print(f"  {'read':28} {cost_ns(few, read, board, cells.index):7.0f} ns")
    print(f"  {'read without histograms':28} {cost_ns(few, read, board, cells.index, False):7.0f} ns")
    board.close()


def tick(worker: Resources, cells: resources.ResourceCells) -> None:
    """A tick after some requests of different duration."""
    for step in range(20):
        cells.add(resources.ADMITTED + step, 1)
    worker.tick(1.0)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 16])
    args = parser.parse_args()
    print("compiled" if resources.__file__.endswith(".so") else "interpreted")
    for workers in args.workers:
        measure(workers, args.count)


if __name__ == "__main__":
    main()
