"""Names that are less than whole ones."""

from __future__ import annotations

import pytest

from edgeq.explain.names import meant, unknown

_NAMES = (
    *("provider/flaky", "upstream/flaky", "provider/openai", "upstream/openai-a", "upstream/openai-b", "upstream/api"),
    *("model/smart", "model/demo", "target/flaky/demo", "target/openai-a/gpt-4o", "target/openai-b/gpt-4o"),
    *("route/models", "prompt/summarize", "listener/127.0.0.1:8080", "listener/[::1]:18080", "tenant/acme", "tenant"),
    *("team/acme/core", "target/ollama/llama3:8b", "worker/0"),
)


@pytest.mark.parametrize(
    ("what", "resources"),
    [
        ("smart", ["model/smart"]),
        ("demo", ["model/demo"]),
        ("flaky", ["provider/flaky"]),
        ("api", ["upstream/api"]),
        ("openai-a/gpt-4o", ["target/openai-a/gpt-4o"]),
        ("gpt-4o", ["target/openai-a/gpt-4o", "target/openai-b/gpt-4o"]),
        ("target/gpt-4o", ["target/openai-a/gpt-4o", "target/openai-b/gpt-4o"]),
        ("summarize", ["prompt/summarize"]),
        ("listener/:8080", ["listener/127.0.0.1:8080"]),
        (":8080", ["listener/127.0.0.1:8080"]),
        ("team/core", ["team/acme/core"]),
        ("core", ["team/acme/core"]),
        ("team/acme", []),
        ("llama3:8b", ["target/ollama/llama3:8b"]),
        (":8b", ["target/ollama/llama3:8b"]),
        ("model/flaky", []),
        ("model/", []),
        ("/", []),
        (":", []),
        ("nobody", []),
    ],
)
def test_what_is_meant(what: str, resources: list[str]) -> None:
    """By its name alone, or the end of it."""
    assert meant(what, {one: [one] for one in _NAMES}) == resources


def test_what_it_may_be() -> None:
    """A near name, in full if the kind was said; or those that have it, of many some."""
    none = "no resource and no remembered request is called "
    assert unknown("smrt", _NAMES, ()) == f"{none}'smrt' (did you mean smart?)"
    assert unknown("upstream/apu", _NAMES, ()) == f"{none}'upstream/apu' (did you mean upstream/api?)"
    assert unknown("upstraem/api", _NAMES, ()) == f"{none}'upstraem/api' (did you mean upstream/api?)"
    assert unknown("openai-a/gpt4o", _NAMES, ()) == f"{none}'openai-a/gpt4o' (did you mean openai-a/gpt-4o?)"
    for name in ("upstream/x", "model/nope", "tenant/nobody", "nobody"):
        assert unknown(name, _NAMES, ()) == f"{none}{name!r}"
    assert unknown("4bf92f3577b34da6a3ce929d0e0e4736", _NAMES, ()).endswith("e4736'")
    assert unknown("4bf92f35", _NAMES, (), "those").endswith("'4bf92f35'; those")
    for name in ("smrt", "upstream/x"):
        assert "those" not in unknown(name, _NAMES, (), "those")
    assert unknown("gpt-4o", _NAMES, ["target/a", "target/b"]) == "'gpt-4o' may be target/a, target/b"
    assert unknown("x", _NAMES, map(str, range(10))) == "'x' may be 0, 1, 2, 3, 4, 5, 6, 7, ..."
