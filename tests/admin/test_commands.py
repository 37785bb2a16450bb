"""The table of admin commands."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.admin import reference
from edgeq.admin.command import Answer, Found
from edgeq.admin.commands import COMMANDS
from edgeq.admin.control import Client, Wish
from edgeq.admin.find import find_http, find_text
from edgeq.admin.render import Column, Record, render_text
from tests.support.fake_control import WORKERS, FakeControl

DOCS = Path(__file__).resolve().parents[2] / "docs"


def run(words: str, control: FakeControl) -> Answer:
    """One command by its words."""
    found = find_text(words)
    assert isinstance(found, Found)
    return asyncio.run(_run(found, control))


async def _run(found: Found, control: FakeControl) -> Answer:
    return await found.command.run(control, found.arguments, Client(uid=5, pid=6))


def test_every_command_has_level_help_and_both_names() -> None:
    """A table without holes: what changes something is for admins and no GET, what reads is GET."""
    assert len({one.words for one in COMMANDS}) == len({(one.method, one.path) for one in COMMANDS}) == len(COMMANDS)
    for command in COMMANDS:
        assert command.help
        assert (command.level == "admin") == (command.method != "GET")
        needed = {one.name: "x" for one in command.arguments if one.required}
        options = {one.name: "x" for one in command.options if one.required}
        values = " x" * len(needed) + "".join(f" --{name} x" for name in options)
        needed |= options
        assert find_text(f"  {command.words.upper()}{values} ") == Found(command, needed)
        assert find_text(f"{command.words}{values} json") == Found(command, needed, True)
        assert find_http(command.method, f"{command.path}?{urlencode(needed)}") == Found(command, needed)
        example = find_text(command.example or command.words)
        assert isinstance(example, Found)
        assert example.command is command


def test_answers() -> None:
    """Status and body of those that decide something."""
    control = FakeControl()
    assert run("reload", control) == Answer(
        422, {"ok": False, "generation": 3, "error": "wrong", "ended": (), "restart": (), "lost": ()}
    )
    assert run("ready", control).status == 200
    assert run("drain", control).status == 202
    assert run("ready", control).status == 503
    assert run("live", control).status == 200
    assert run("show workers", control).body == WORKERS
    assert run("show metrics", control) == Answer(200, (), b"numbers\n", "text/plain; ")


def test_a_rest_is_ended() -> None:
    """Of what rests, or what a provider has told of its limits; else whoever asks hears that there is neither, or that
    there is no such name."""
    model = "target/openai/m"
    for words, ended in (("wake openai", ["upstream/openai"]), (f"wake {model}", [])):
        assert run(words, FakeControl()).body == {"ok": True, "ended": ended, "forgotten": [model]}
    for words, status, said in (
        ("wake calm", 422, "nothing rests at calm, or keeps to what it was told: show targets"),
        ("wake opena", 404, "no model at one is called opena (did you mean openai?): show targets"),
    ):
        answer = run(words, FakeControl())
        assert answer.status == status
        assert isinstance(answer.body, dict)
        assert str(answer.body["error"]).endswith(said)


def test_limits_by_the_name_of_a_resource() -> None:
    """As `set` calls it, or as keys are told in full."""
    for words, found in (
        ("model/mini", 2),
        ("model.mini", 2),
        ("model.mini.", 1),
        ("listener/:80", 1),
        ("model/", 0),
        ("nothing/mini", 0),
    ):
        assert len(run(f"show limits {words}", FakeControl()).body) == found, words


def test_arguments_by_place_and_by_name() -> None:
    """A filter looks in names and kinds; a number is checked; both ways of asking take the same."""
    control = FakeControl()
    assert [one["queue"] for one in list(run("show queues upstream/api", control).body)] == ["upstream/api:queue"]  # type: ignore[index]
    assert len(run("show events 7", control).body) == 7
    for words, resource, seconds, step_s in (
        ("", "all", 10.0, 10.0),
        (" upstream/a", "upstream/a", 60.0, 1.0),
        (" upstream/a 5", "upstream/a", 5.0, 1.0),
        (" upstream/a 5 0.1", "upstream/a", 5.0, 0.1),
        (" upstream/a 3600 0.1", "upstream/a", 3600.0, 1.0),
        (" all 5 0.1", "all", 5.0, 5.0),
    ):
        assert run(f"show history{words}", control).body == [{"resource": resource, "s": seconds, "step": step_s}]
    assert run("show history upstream/x", control) == Answer(404, {"ok": False, "error": "no history of 'upstream/x'"})
    found = find_http("GET", "/v1/queues?match=a%2Fb")
    assert isinstance(found, Found)
    assert found.arguments == {"match": "a/b"}


def test_events_are_told_with_all_that_is_known_of_them() -> None:
    """As whoever follows them sees them: what was done, by whom, to what."""
    found = find_text("show events")
    assert isinstance(found, Found)
    event = {"timestamp": "T", "level": "info", "event": "live change", "resource": "upstream/a", "uid": 0}
    lines = found.command.text([event, event]).splitlines()
    assert len(lines) == 2
    assert all("live change" in line and "upstream/a" in line and "uid" in line for line in lines)
    assert found.command.text([]) == "(none)\n"


def test_events_with_a_text() -> None:
    """In any of their values, among the last thousand or fewer; none is said to be none."""

    class Eventful(FakeControl):
        def events(self, count: int) -> Sequence[Record]:
            return [{"event": f"e{number % 10}", "pid": number} for number in range(count)]

    control = Eventful()
    assert len(run("show events e7", control).body) == 100
    assert len(run("show events e7 --count 9", control).body) == 1
    nothing = run("show events no-such-word", control)
    assert (nothing.status, nothing.body) == (200, [])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("show events --count many", "count: expected a number from 1 to 1000"),
        ("show events 0", "match: expected a number from 1 to 1000"),
        ("show history upstream/a 3601", "seconds: expected a number from 1 to 3600"),
        *[
            (f"show history upstream/a 60 {step}", "step: expected a number from 0.1 to 3600")
            for step in ("0.09", "0", "-1", "nan", "1e1", ".", "3601")
        ],
        ("show events 1001", "match: expected"),
        ("show queues a b", "too many words: show queues [MATCH]"),
        ("show worker", "did you mean 'show workers'"),
        ("zzz", "try 'help'"),
        ("show", "'show' goes on: show queues, show upstreams, "),
        ("keys json", "'keys' goes on: keys list, keys show, "),
        ("show queues --json", "unknown option '--json': show queues [MATCH]"),
        ("drain a:1 --ttl 1m --ttl 2m", "--ttl is given twice"),
        ("json", "unknown command 'json'"),
        ('set upstream/a limit 5 --if-match ""', "if-match: expected an ETag, or *"),
    ],
)
def test_wrong_words(words: str, says: str) -> None:
    """Each mistake is named, the nearest command, too."""
    found = find_text(words)
    assert isinstance(found, str)
    assert says in found


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/v1/reload", 405),
        ("GET", "/x", 404),
        ("GET", "/v1/queues?mach=a", 400),
        ("GET", "/v1/queues?match=a&match=b", 400),
        ("GET", "/v1/events?count=x", 400),
        ("POST", "/v1/queues", 405),
    ],
)
def test_wrong_requests(method: str, target: str, status: int) -> None:
    """Three different refusals, each with a text."""
    answer = find_http(method, target)
    assert isinstance(answer, Answer)
    assert answer.status == status
    assert isinstance(answer.body, dict)
    assert answer.body["error"]


def test_text_is_aligned() -> None:
    """Records are a table, one record is lines."""
    assert render_text(WORKERS) == "slot  state\n0     serving\n10    draining\n"
    assert render_text({"ok": True, "generation": 3}) == "ok: true\ngeneration: 3\n"
    assert render_text({"expires": None, "team": "", "models": []}) == "expires: -\nteam: -\nmodels: -\n"
    assert render_text([]) == "(none)\n"
    assert render_text([{"tenant": "", "busy": 2, "for": None}]) == "tenant  busy  for\n-       2     -\n"
    assert render_text({"day": 2000.0, "month": 12345.6}) == "day: 2000\nmonth: 12346\n"
    assert render_text({"day": 2.1e-05, "month": 999.6}) == "day: 0.000021\nmonth: 1000\n"
    times = (3e-08, 0.0214, 0.5, 9.96, 12.0)
    (_, *cells) = render_text([{"ms": one} for one in times], [Column("ms", "", "ms")]).split()
    assert cells == ["0", "0.021ms", "0.5ms", "10ms", "12ms"]


def test_values_for_people() -> None:
    """Times have their unit, what is unknown is a dash, and a value within a record is reached by its path."""
    columns = (Column("t", "time", "ms"), Column("w.p99", "p99", "ms"), Column("n", "", "count"))
    rows: list[Record] = [
        {"t": 0.0, "w": {"p99": 1234.5}, "n": None},
        {"t": 0.25, "w": {"p99": 12.3}, "n": 7},
        {"t": 120_000, "w": {"p99": None}, "n": 0},
    ]
    assert render_text(rows, columns) == (
        "  time  p99 n\n"
        "     0 1.2s -\n"
        "0.25ms 12ms 7\n"
        "  2.0m    - 0\n"
    )  # fmt: skip


def test_help_fits_80_columns() -> None:
    """As text: what there is, by words; how it is said in full is in JSON, and in a table of fewer."""
    answer = run("help", FakeControl())
    found = find_text("help")
    assert isinstance(found, Found)
    lines = found.command.text(answer.body).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == len(COMMANDS) + 1
    assert any(line.startswith("follow events ") for line in lines)
    (one,) = [one for one in run("help high", FakeControl()).body if isinstance(one, dict)]
    assert (one["words"], one["http"]) == ("reset high-water", "POST /v1/queues/reset")


def test_names_cannot_move_the_cursor() -> None:
    """A tenant's name is what a client has sent."""
    assert "\x1b" not in render_text([{"tenant": "a\x1b[2Jb\nc"}])
    assert render_text([{"tenant": "a\nb"}]).count("\n") == 2


@given(
    st.lists(
        st.tuples(st.text(max_size=200), st.text(max_size=200), st.integers(0, 10**6), st.floats(0, 10**5)), min_size=1
    )
)
def test_a_table_fits_80_columns(values: list[tuple[str, str, int, float]]) -> None:
    """Whatever the names: columns that may give way are cut in their middle."""
    columns = (
        Column("a", gives_way=True),
        Column("b", gives_way=True),
        Column("c", "", "count"),
        Column("d", "", "ms"),
    )
    rows: list[Record] = [dict(zip("abcd", row, strict=True)) for row in values]
    lines = render_text(rows, columns).split("\n")
    assert len(lines) == len(rows) + 2
    assert max(map(len, lines)) <= 80


def test_pages_explain_every_argument_and_option() -> None:
    """Nobody has to guess what may be said."""
    for page in (reference.page(), reference.man().replace("\\-", "-")):
        for command in COMMANDS:
            for one in (*command.arguments, *command.options):
                assert one.help[1:] in page


def test_examples_of_the_page_say_in_a_shell_what_they_show() -> None:
    """Also those with quotes of their own."""
    said = [shlex.split(line) for line in reference.page().splitlines() if line.startswith("    echo '")]
    said += [shlex.split(line) for line in reference.page().splitlines() if line.startswith('    echo "')]
    assert {words[1] for words in said} >= {one.example for one in COMMANDS if one.example}


def test_pages_are_the_table() -> None:
    """Whoever changes the table makes its pages anew."""
    assert (DOCS / "admin.md").read_text() == reference.page(), "python -m edgeq.admin.reference page > docs/admin.md"
    assert (DOCS / "edgeq-admin.7").read_text() == reference.man(), "python -m edgeq.admin.reference man > docs/.."


@pytest.mark.parametrize(
    ("words", "wish"),
    [
        ("set upstream/api limit 64", Wish("upstream/api", "limit", "64")),
        ("set access_log format json", Wish("access_log", "format", "json")),
        ("set log level debug --ttl 5m json", Wish("log", "level", "debug", ttl_s=300.0)),
        ("set a/b c --comment 'two words' d --persist", Wish("a/b", "c", "d", comment="two words", persists=True)),
        ("set a/b c d --comment=x --if-match a-7", Wish("a/b", "c", "d", comment="x", if_match="a-7")),
        ("set rate/x limits '[\"1/s burst 2\"]'", Wish("rate/x", "limits", '["1/s burst 2"]')),
        ("unset upstream/api limit", Wish("upstream/api", "limit", None)),
        ("drain h:1 --ttl 1s", Wish("upstream/a", "endpoints.http://h:1.weight", "0", ttl_s=1.0)),
        ("undrain h:1", Wish("upstream/a", "endpoints.http://h:1.weight", "1", "0", "http://h:1 of a is not drained")),
        ("disable h:1", Wish("upstream/a", "endpoints.http://h:1.enabled", "false")),
        ("disable provider/openai", Wish("provider/openai", "enabled", "false")),
        ("disable target/openai/gpt-4.1", Wish("provider/openai", "disabled.openai/gpt-4.1", "true")),
        (
            "enable target/openai/gpt-4.1",
            Wish(
                "provider/openai",
                "disabled.openai/gpt-4.1",
                "false",
                "true",
                "target/openai/gpt-4.1 is not disabled",
            ),
        ),
        (
            "enable h:1",
            Wish("upstream/a", "endpoints.http://h:1.enabled", "true", "false", "http://h:1 of a is not disabled"),
        ),
        ("pause route/r", Wish("route/r", "paused", "true")),
        ("resume r", Wish("route/r", "paused", "false", "true", "route/r is not paused")),
    ],
)
def test_wishes(words: str, wish: Wish) -> None:
    """What a change asks for, with who asks; a value may be the word json."""
    control = FakeControl()
    assert run(words, control) == Answer(200, {"ok": True, "generation": 7, "etag": "a-7"}, etag="a-7")
    assert control.wish == replace(wish, uid=5, pid=6)


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ("set a/b c d --if-match old", 412, "changed meanwhile"),
        ("drain nowhere", 422, "there is no endpoint nowhere; there are h:1, http://h:1 (what a name"),
        ("drain nowhere", 422, "disable provider/NAME takes a provider out; of several endpoints of one, set "),
        ("disable provider/opnai", 422, "there is no provider/opnai (did you mean provider/openai?): show targets"),
        ("disable model/mini", 422, "a model itself cannot be disabled, but its targets can: target/openai/mini, "),
        (
            "disable tiny",
            422,
            "a model itself cannot be disabled, but its targets can: target/openai/mini, target/azure",
        ),
        ("disable key/k3v8n2pq", 422, "a virtual key cannot be disabled: keys revoke k3v8n2pq "),
        ("disable route/checkout", 422, "pause route/NAME"),
        ("disable opnai", 422, "nothing is called opnai that can be disabled (did you mean openai?): an endpoint"),
        ("enable nowhere", 422, "nothing is called nowhere that can be disabled: an endpoint"),
        ("drain htp://h:1", 422, "there is no endpoint htp://h:1; did you mean http://h:1?"),
        (
            "disable htp://h:1",
            422,
            "nothing is called htp://h:1 that can be disabled (did you mean http://h:1?): an endpoint",
        ),
        ("drain both", 422, "several upstreams have it: a#http://both, b#http://both"),
        ("drain --ttl 5m", 400, "an option without an endpoint"),
    ],
)
def test_changes_that_are_refused(words: str, status: int, says: str) -> None:
    """An endpoint has to be a known one, and one only; an option alone does not end the gateway."""
    control = FakeControl()
    answer = run(words, control)
    assert isinstance(answer.body, dict)
    assert (answer.status, answer.body["ok"]) == (status, False)
    assert says in answer.body["error"]
    assert not control.drained


def test_where_no_endpoint_can_be_drained_it_says_why() -> None:
    """Providers' have no weights: "there are none" would be read as none of the gateway's."""
    control = FakeControl()
    control.endpoint_names = list  # type: ignore[method-assign]
    answer = run("drain nowhere", control)
    assert isinstance(answer.body, dict)
    assert answer.body["error"] == (
        "there is no endpoint nowhere; all upstreams are made of providers' keys, whose endpoints cannot be drained ("
        "disable provider/NAME takes a provider out; of several endpoints of one, set provider/NAME endpoints leaves"
        " one out)"
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("set", "RESOURCE is missing: set RESOURCE KEY VALUE"),
        ("set a/b c d --ttl", "ttl: expected a duration"),
        ("set a/b c d --ttl 0", "ttl: expected a duration"),
        ("set a/b c d --persist=maybe", "persist: expected true or false"),
        ("set a/b c d --until 5m", "unknown option '--until'"),
        ("set a/b c d e", "too many words"),
        (f"set a/b c d --comment {'x' * 201}", "comment: expected 200 printable characters at most"),
        ("pause", "ROUTE is missing: pause ROUTE"),
    ],
)
def test_wrong_options(words: str, says: str) -> None:
    """Each mistake is named before anybody is asked for anything."""
    found = find_text(words)
    assert isinstance(found, str)
    assert says in found
