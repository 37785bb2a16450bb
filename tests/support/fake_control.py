"""A supervisor for the tests of the admin socket: it answers, and does nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from edgeq.admin.control import Changed, Reloaded, Wish
from edgeq.admin.render import Record

WORKERS: list[Record] = [{"slot": 0, "state": "serving"}, {"slot": 10, "state": "draining"}]


class FakeControl:
    """Answers without a supervisor."""

    def __init__(self) -> None:
        self.drained = False
        self.begun = False
        self.wish: Wish | None = None
        self.explained = ""

    def show(self, subject: str) -> Sequence[Record]:
        if subject == "queues":
            return [{"queue": "upstream/api:queue", "kind": "limit"}, {"queue": "log", "kind": "log"}]
        if subject == "limits":
            names = ("model.mini.limits.concurrent", "model.mini2.limits.concurrent", 'listener.":80".backlog')
            return [{"limit": name, "source": "file"} for name in names]
        if subject == "models":
            return [{"model": "mini", "target": f"{one}/mini", "aliases": ["tiny"]} for one in ("openai", "azure")]
        return WORKERS

    async def history(self, resource: str, seconds: float, step_s: float) -> Sequence[Record] | str:
        if resource == "upstream/x":
            return f"no history of {resource!r}"
        return [{"resource": resource, "s": seconds, "step": step_s}]

    def events(self, count: int) -> Sequence[Record]:
        return [{"event": str(number)} for number in range(count)]

    async def follow_events(self) -> AsyncIterator[Record]:
        yield {"event": "one"}

    async def connections(self, count: int) -> list[Record]:
        return [{"client": "a"}] * count

    def metrics(self, accept: str) -> tuple[str, bytes]:
        return f"text/plain; {accept}", b"numbers\n"

    def version(self) -> Record:
        return {"version": "1"}

    def explain(self, what: str) -> Record | None:
        if what.partition("/")[0] not in ("", "tenant", "team", "key") and what not in self.resources():
            return None
        self.explained = what
        return {"verdict": "fine", "evidence": [], "next": "", "also": []}

    def remembered(self) -> str:
        return ""

    tenants_are_listed = False

    def resources(self) -> Sequence[str]:
        models = ["model/smart", "model/demo", "target/flaky/demo", "target/openai/gpt-4o", "prompt/summarize"]
        return ["upstream/api", "upstream/flaky", "provider/flaky", "listener/127.0.0.1:8080", *models]

    def is_ready(self) -> bool:
        return not self.drained

    async def reload(self) -> Reloaded:
        return Reloaded(False, 3, "wrong")

    async def change(self, wish: Wish) -> Changed:
        self.wish = wish
        return Changed(
            412 if wish.if_match == "old" else 200, 7, "a-7", "changed meanwhile" if wish.if_match == "old" else ""
        )

    def endpoints(self, text: str) -> Sequence[tuple[str, str]]:
        return [
            (name, f"http://{text}")
            for name in ("a", "b")
            if text == "both" or (name == "a" and ":" in text and text != "htp://h:1")
        ]

    def endpoint_names(self) -> Sequence[str]:
        return ["h:1", "http://h:1"]

    def parts(self) -> Mapping[str, tuple[str, str]]:
        return {
            "provider/openai": ("openai", ""),
            "openai": ("openai", ""),
            "target/openai/gpt-4.1": ("openai", "openai/gpt-4.1"),
        }

    accounts = None

    @property
    def etag(self) -> str:
        return "a-7"

    def wake(self, name: str) -> tuple[Sequence[str], Sequence[str]] | None:
        target = "target/openai/m"
        return {"openai": (["upstream/openai"], [target]), target: ([], [target]), "calm": ([], [])}.get(name)

    def wake_names(self) -> Sequence[str]:
        return ["openai", "calm"]

    def begin_highs(self) -> None:
        self.begun = True

    def drain(self) -> None:
        self.drained = True
