"""The table of admin commands."""

from __future__ import annotations

import asyncio

import pytest

from edgeq.admin.commands import COMMANDS, Answer, Command, Record, Reloaded, find_http, find_text, render_text


class FakeControl:
    """Answers without a supervisor."""

    def __init__(self) -> None:
        self.drained = False

    def workers(self) -> list[Record]:
        return [{"slot": 0, "state": "serving"}, {"slot": 10, "state": "draining"}]

    def version(self) -> Record:
        return {"version": "1"}

    def is_ready(self) -> bool:
        return not self.drained

    async def reload(self) -> Reloaded:
        return Reloaded(False, 3, "wrong")

    def drain(self) -> None:
        self.drained = True


def run(words: str, control: FakeControl) -> Answer:
    """One command by its words."""
    command = find_text(words)
    assert isinstance(command, Command)
    return asyncio.run(_run(command, control))


async def _run(command: Command, control: FakeControl) -> Answer:
    return await command.run(control)


def test_every_command_has_level_help_and_both_names() -> None:
    """A table without holes: what changes something is POST and for admins, what reads is GET."""
    assert len({command.words for command in COMMANDS}) == len({command.path for command in COMMANDS}) == len(COMMANDS)
    for command in COMMANDS:
        assert command.help
        assert (command.level == "admin") == (command.method == "POST")
        assert find_text(f"  {command.words.upper()} ") is command
        assert find_http(command.method, command.path) is command


def test_answers() -> None:
    """Status and body of those that decide something."""
    control = FakeControl()
    assert run("reload", control) == Answer(422, {"ok": False, "generation": 3, "error": "wrong"})
    assert run("ready", control).status == 200
    assert run("drain", control).status == 202
    assert run("ready", control).status == 503
    assert run("live", control).status == 200


@pytest.mark.parametrize(("words", "advice"), [("show worker", "did you mean 'show workers'"), ("zzz", "try 'help'")])
def test_unknown_command_gets_advice(words: str, advice: str) -> None:
    """The nearest command is named."""
    found = find_text(words)
    assert isinstance(found, str)
    assert advice in found


def test_wrong_method_and_path() -> None:
    """Two different refusals."""
    assert find_http("GET", "/v1/reload") == Answer(405, {"ok": False, "error": "/v1/reload takes POST"})
    answer = find_http("GET", "/x")
    assert isinstance(answer, Answer)
    assert answer.status == 404


def test_text_is_aligned() -> None:
    """Records are a table, one record is lines."""
    assert render_text(FakeControl().workers()) == "slot  state\n0     serving\n10    draining\n"
    assert render_text({"ok": True, "generation": 3}) == "ok: true\ngeneration: 3\n"
    assert render_text([]) == "(none)\n"
