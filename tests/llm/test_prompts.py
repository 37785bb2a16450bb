"""Prompts: variables in, a conversation out; nothing that a variable says is more than text."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.config.base import Text
from edgeq.config.schema_llm import Prompt, PromptMessage, Variable
from edgeq.llm.message import STOP_LENGTH, TEXT, THINKING, Answer, Part, Request, Unmappable
from edgeq.llm.prompts import NotJson, Prompts
from edgeq.llm.prompts import Prompt as Compiled
from edgeq.llm.template import Template

VARIABLES = {
    "text": Variable(max_length=100, help="What to summarize."),
    "count": Variable(type="integer", min=1, max=5, default=3),
    "ratio": Variable(type="number", required=False, max=1.5),
    "formal": Variable(type="boolean", default=False),
    "tone": Variable(type="enum", values=("dry", "warm"), default="dry"),
    "topics": Variable(type="list", required=False, max=2, max_length=5),
}
MESSAGES = (
    PromptMessage(role="system", text=Text("Be {{tone}}; formal: {{formal}}.")),
    PromptMessage(role="user", text=Text("In {{ count }} lines ({{ratio}}), about {{topics}}: {{text}}")),
)


def settings(**more: Any) -> Prompt:
    given: dict[str, Any] = {
        "name": "sum.up",
        "path": "/p/sum",
        "route": "llm",
        "model": "small",
        "messages": MESSAGES,
        "variables": VARIABLES,
    }
    return Prompt(**{**given, **more})


def compiled(**more: Any) -> Compiled:
    return Compiled(settings(**more))


def texts(request: Request) -> list[tuple[str, str]]:
    return [(one.role, one.parts[0].text) for one in request.messages]


def ask(body: dict[str, Any], **more: Any) -> list[tuple[str, str]]:
    return texts(compiled(**more).request(orjson.dumps(body)))


def refused(body: bytes) -> Unmappable:
    with pytest.raises(Unmappable) as caught:
        compiled().request(body)
    return caught.value


# -- templates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names", "rendered"),
    [
        ("", [], ""),
        ("plain {x} }}", [], "plain {x} }}"),
        ("{{a}}", ["a"], "A"),
        ("{{ a }}{{a}}-{{b_1}}", ["a", "a", "b_1"], "AA-{{a}}"),
        ("{{{{a}}", [], "{{a}}"),
        ("{{{{{{a}}}}", ["a"], "{{A}}"),
        ('{"x": {"y": "{{a}}"}}', ["a"], '{"x": {"y": "A"}}'),
    ],
)
def test_templates(text: str, names: list[str], rendered: str) -> None:
    """Names between two braces; four are two; what a variable says is not looked at again."""
    template = Template(text)
    assert template.names() == names
    assert template.render({"a": "A", "b_1": "{{a}}"}) == rendered


@pytest.mark.parametrize("text", ["{{", "{{a", "{{a b}}", "{{}}", "{{a}", "{{{a}}}", "{{#if a}}", "{{1a}}", "{{a.b}}"])
def test_braces_that_are_no_variable(text: str) -> None:
    """Rather an error than a template that says something else."""
    with pytest.raises(ValueError, match="is no variable"):
        Template(text)


@given(st.lists(st.text("{}a ", max_size=6), min_size=1, max_size=4), st.text("{}a ", max_size=6))
def test_any_text_can_be_written(pieces: list[str], value: str) -> None:
    """With its double braces doubled; values are put in as they are."""
    plain = [piece.strip("{}") for piece in pieces]  # a brace beside a variable's would be one of its
    written = "{{a}}".join(piece.replace("{{", "{{{{") for piece in plain)
    assert Template(written).render({"a": value}) == value.join(plain)


# -- variables --------------------------------------------------------------------------------------------------------


def test_a_list_has_a_default() -> None:
    """As every kind has."""
    messages = (PromptMessage(role="user", text=Text("about: {{topics}}")),)
    topics = {"topics": Variable(type="list", default=("a", "b"))}
    made = compiled(messages=messages, variables=topics)
    assert [texts(made.request(body)) for body in (b"{}", b'{"topics": ["c"]}')] == [
        [("user", "about: a\nb")],
        [("user", "about: c")],
    ]
    assert orjson.loads(made.description(["1"]))["request"]["properties"]["topics"]["default"] == ["a", "b"]


def test_what_is_asked() -> None:
    """All kinds of variables, given and left out."""
    assert ask({"text": "T", "count": 2, "ratio": 0.5, "formal": True, "tone": "warm", "topics": ["a", "b"]}) == [
        ("system", "Be warm; formal: true."),
        ("user", "In 2 lines (0.5), about a\nb: T"),
    ]
    assert ask({"text": "", "ratio": None}) == [
        ("system", "Be dry; formal: false."),
        ("user", "In 3 lines (), about : "),
    ]


@pytest.mark.parametrize(
    ("more", "param", "message"),
    [
        ({"text": None}, "text", "text is missing"),
        ({"text": 1}, "text", "text must be a string"),
        ({"text": ["a"]}, "text", "text must be a string"),
        ({"text": "x" * 101}, "text", "text has 101 characters, of 100 at most"),
        ({"txt": "x"}, "txt", "there is no variable txt (did you mean text?)"),
        ({"count": 0}, "count", "count must be 1 at least"),
        ({"count": 6}, "count", "count must be 5 at most"),
        ({"count": 2.0}, "count", "count must be an integer"),
        ({"count": True}, "count", "count must be an integer"),
        ({"count": "2"}, "count", "count must be an integer"),
        ({"ratio": 1.6}, "ratio", "ratio must be 1.5 at most"),
        ({"ratio": False}, "ratio", "ratio must be a number"),
        ({"formal": 1}, "formal", "formal must be true or false"),
        ({"tone": "arm"}, "tone", "tone must be one of dry, warm (did you mean warm?)"),
        ({"tone": ["dry"]}, "tone", "tone must be one of dry, warm"),
        ({"topics": "a"}, "topics", "topics must be a list of strings"),
        ({"topics": ["a", 1]}, "topics", "topics must be a list of strings"),
        ({"topics": ["a", "b", "c"]}, "topics", "topics must have 2 items at most"),
        ({"topics": ["abcdef"]}, "topics", "an item of topics has 6 characters, of 5 at most"),
    ],
    ids=str,
)
def test_bad_variables(more: dict[str, Any], param: str, message: str) -> None:
    """400 with the field named."""
    error = refused(orjson.dumps({"text": "T", **more}))
    assert (error.param, error.message) == (param, message)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"null", b'{"text": "\xff"}'])
def test_bad_bodies(body: bytes) -> None:
    """No object of variables."""
    assert refused(body).param == ""


@given(st.text())
def test_a_variable_is_text_and_nothing_else(text: str) -> None:
    """It makes no message, no role, and no other variable, whatever it holds."""
    prompt = Compiled(
        settings(messages=(PromptMessage(role="user", text=Text("<{{text}}>")),), variables={"text": Variable()})
    )
    try:
        body = orjson.dumps({"text": text})
    except TypeError:  # half a surrogate pair
        return
    assert texts(prompt.request(body)) == [("user", f"<{text}>")]


# -- requests and answers ---------------------------------------------------------------------------------------------


def test_terms() -> None:
    """What the operator has said of the answer; nothing else."""
    request = compiled().request(b'{"text": ""}')
    assert (request.model, request.max_tokens, request.temperature, request.response_format) == (
        "small",
        None,
        None,
        "",
    )
    request = compiled(max_tokens=5, temperature=0.0, json_schema='{"type": "object"}').request(b'{"text": ""}')
    assert (request.max_tokens, request.temperature) == (5, 0.0)
    assert (request.response_format, request.schema_name, request.schema) == ("schema", "sum_up", {"type": "object"})
    assert compiled(answer="json").request(b'{"text": ""}').response_format == "json"


def answer(text: str, stop: str = "end") -> Answer:
    return Answer("id", "m", [Part(THINKING, "hm"), Part(TEXT, text[:3]), Part(TEXT, text[3:])], stop)


def test_answers() -> None:
    """The text in an object, with how it ended unless it came to its end; or what the model has written."""
    assert compiled().answer(answer("Hello")) == b'{"text":"Hello"}'
    assert compiled().answer(answer("Hello", STOP_LENGTH)) == b'{"text":"Hello","stop":"length"}'
    prompt = compiled(answer="json")
    assert prompt.answer(answer(' {"a": 1.0}\n')) == b'{"a": 1.0}'
    with pytest.raises(NotJson, match="cut at max_tokens"):
        prompt.answer(answer('{"a"', STOP_LENGTH))
    with pytest.raises(NotJson):
        prompt.answer(answer("Sure! {}"))


def test_the_description_is_a_schema() -> None:
    """Of what to send; the texts are not told."""
    told = orjson.loads(compiled().description(["1", "2"]))
    assert told["request"]["required"] == ["text"]
    assert told["request"]["properties"] == {
        "text": {"type": "string", "description": "What to summarize.", "maxLength": 100},
        "count": {"type": "integer", "default": 3, "minimum": 1, "maximum": 5},
        "ratio": {"type": "number", "maximum": 1.5},
        "formal": {"type": "boolean", "default": False},
        "tone": {"type": "string", "default": "dry", "enum": ["dry", "warm"]},
        "topics": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 2},
    }
    assert (told["name"], told["version"], told["versions"]) == ("sum.up", "1", ["1", "2"])
    assert told["answer"]["required"] == ["text"]
    assert b"Be " not in compiled().description([])


def test_marks() -> None:
    """Whatever is changed in a prompt changes its mark; and nothing else does."""
    marks = {
        compiled().mark,
        compiled(version="2").mark,
        compiled(messages=MESSAGES[1:]).mark,
        compiled(variables={**VARIABLES, "more": Variable()}).mark,
    }
    assert len(marks) == 4
    assert compiled().mark in marks


def test_versions() -> None:
    """The last in the file is the default."""
    prompts = Prompts((settings(version="a"), settings(version="b"), settings(path="/p/other")))
    for version, expected in (("", "b"), ("a", "a"), ("b", "b")):
        found = prompts.find(b"/p/sum", version)
        assert found is not None
        assert found.settings.version == expected
    assert prompts.find(b"/p/sum", "c") is None
    assert prompts.find(b"/p/nothing", "") is None
    assert prompts.versions(b"/p/sum") == ["a", "b"]
    assert prompts.near(b"/p/summ") == ", or are those of prompts (did you mean /p/sum?)"
    assert prompts.near(b"/v1/none/of/them") == ", or are those of prompts"
    assert Prompts(()).near(b"/p/sum") == ""
    assert prompts.versions(b"/p/nothing") == []
