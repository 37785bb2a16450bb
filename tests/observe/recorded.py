"""A recorder of a board of two workers, whose time a test turns."""

from __future__ import annotations

import os

from edgeq.board import resources
from edgeq.board.handover import Neighbours
from edgeq.board.layout import Board
from edgeq.board.resources import ResourceCells
from edgeq.config.base import Duration
from edgeq.config.schema import Config, Listener, Match, Provider, Route, Server, Upstream
from edgeq.config.schema_llm import Model, Target
from edgeq.observe.history import EVERY_S
from edgeq.observe.recorder import Recorder
from edgeq.supervisor.sockets_io import Queue

CONFIG = Config(
    server=Server(history=Duration(20)),
    listener=(Listener(address="127.0.0.1:1"),),
    upstream={"u": Upstream(endpoints=("http://127.0.0.1:9",), limit=3), "v": Upstream(endpoints=("http://h",))},
    route=(Route(name="r", match=Match(path="/*"), upstream="u", limit=5),),
    provider={"p": Provider(url="http://h/v1")},
    model={"smart": Model(aliases=("best",), targets=(Target(provider="p", model="m"),))},
)


class Bench:
    """A board of two workers, this process in both; time goes on by `tick`."""

    def __init__(self) -> None:
        self.config = CONFIG
        self.pid = os.getpid()
        self.board = Board.create(2)
        for slot in range(2):
            self.board.use(slot)
        self.board.assign_resources(["upstream/u", "upstream/v", "route/r", "target/p/m"])
        self.cells = [ResourceCells(self.board, self.neighbours(slot), "upstream/u") for slot in range(2)]
        self.now = 1000.0
        self.recorder = self.new_recorder()

    def neighbours(self, slot: int) -> Neighbours:
        return Neighbours(self.board, slot, lambda _slot: None)

    def new_recorder(self) -> Recorder:
        made = Recorder(self.board, self, self, lambda: self.config)
        made.configure()
        return made

    def pids(self) -> dict[int, int]:
        return {0: os.getpid(), 1: self.pid}

    def queues(self) -> list[Queue]:
        return []

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.now += EVERY_S
            self.recorder.take(self.now)

    def work(self, served: int, refused: int = 0, service_s: float = 0.0) -> None:
        """Requests that come and go at the second worker before the next tick."""
        cells = self.cells[1]
        for _ in range(served):
            cells.admitted(0.0)
            cells.finished(service_s, resources.OK)
        for _ in range(refused):
            cells.refused("queue_full")
        cells.flush()
