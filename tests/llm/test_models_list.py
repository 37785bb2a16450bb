"""The list of models, as clients of OpenAI's and of Anthropic's read it."""

from __future__ import annotations

import orjson

from edgeq.llm.models_list import list_body, model_body


def test_a_client_of_openai_reads_the_names() -> None:
    """All of them, and one."""
    model = {"id": "a", "object": "model", "created": 0, "owned_by": "edgeq"}
    assert orjson.loads(list_body(["a", "b"], anthropic=False)) == {
        "object": "list",
        "data": [model, model | {"id": "b"}],
    }
    assert orjson.loads(model_body("a", anthropic=False)) == model


def test_a_client_of_anthropic_reads_one_page() -> None:
    """With its ends, by which it would ask for more."""
    model = {"type": "model", "id": "a", "display_name": "a", "created_at": "1970-01-01T00:00:00Z"}
    assert orjson.loads(list_body(["a", "b"], anthropic=True)) == {
        "data": [model, model | {"id": "b", "display_name": "b"}],
        "has_more": False,
        "first_id": "a",
        "last_id": "b",
    }
    assert orjson.loads(model_body("a", anthropic=True)) == model
    assert orjson.loads(list_body([], anthropic=True))["first_id"] is None
