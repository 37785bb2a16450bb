"""What a provider counts may be nonsense: what is made of it can be told in each dialect, and summed up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq.llm.dialects import anthropic, embeddings, gemini, openai_answer, responses
from edgeq.llm.dialects.anthropic_answer import decode_usage as decode_anthropic
from edgeq.llm.dialects.gemini_answer import decode_answer as decode_gemini
from edgeq.llm.message import MAX_TOKENS, TEXT, UNKNOWN, Answer, Part, Request, Usage

NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30), st.sampled_from([-1, 0, 2**63 - 1, 2**63, 2**64 - 1, 2**64]), st.integers(0, 10**5)
)
FIVE = st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS)


def by_openai(counts: tuple[int, ...]) -> Usage:
    names = ("prompt_tokens", "completion_tokens")
    said: dict[str, object] = dict(zip(names, counts, strict=False))
    said["prompt_tokens_details"] = {"cached_tokens": counts[2], "cache_write_tokens": counts[3]}
    said["completion_tokens_details"] = {"reasoning_tokens": counts[4]}
    return openai_answer.decode_usage(said)


def by_anthropic(counts: tuple[int, ...]) -> Usage:
    names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    said: dict[str, object] = dict(zip(names, counts, strict=False))
    return decode_anthropic(said | {"output_tokens_details": {"thinking_tokens": counts[4]}})


def by_gemini(counts: tuple[int, ...]) -> Usage:
    names = ("promptToken", "candidatesToken", "cachedContentToken", "thoughtsToken", "toolUsePromptToken")
    told = ",".join(f'"{name}Count":{count}' for name, count in zip(names, counts, strict=True))
    candidate = '{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}'
    return decode_gemini(f'{{"candidates":[{candidate}],"usageMetadata":{{{told}}}}}'.encode()).usage


@given(FIVE)
@pytest.mark.parametrize("decode", [by_openai, by_anthropic, by_gemini])
def test_any_count_can_be_told(decode: object, counts: tuple[int, ...]) -> None:
    """By each dialect, in 64 bits, and no token is negative."""
    usage = decode(counts)  # type: ignore[operator]
    for one in (usage.input, usage.output):
        assert UNKNOWN <= one <= MAX_TOKENS
    for one in (usage.cached, usage.cache_write, usage.reasoning):
        assert 0 <= one <= MAX_TOKENS
    for dialect in (openai_answer, anthropic, responses):
        dialect.encode_answer(Answer("1", "m", [Part(TEXT, "hi")], usage=usage), Request("m", []))


@pytest.mark.parametrize("count", [-5, 10**30])
def test_counts_of_embeddings_can_be_told(count: int) -> None:
    """A provider's word for what a request has used."""
    asked = embeddings.EmbeddingRequest("m", texts=["a"])
    body = b'{"embeddings":[{"values":[1]}],"usageMetadata":{"promptTokenCount":%d}}' % count
    found = embeddings.decode_gemini(body, asked)
    assert UNKNOWN <= found.input_tokens <= MAX_TOKENS
    embeddings.encode_answer(found, asked)


@pytest.mark.parametrize("told", [True, False, 1.5, "7", None, [1], {"a": 1}])
@pytest.mark.parametrize("decode", [by_openai, by_anthropic])
def test_what_is_no_number_counts_nothing(decode: object, told: object) -> None:
    """Least of all `true`, which is a whole number to Python: the supervisor kills a worker that tells it of one."""
    usage = decode((told,) * 5)  # type: ignore[operator]
    for one in (usage.input, usage.output, usage.cached, usage.cache_write, usage.reasoning):
        assert type(one) is int
        assert one <= 0


def test_what_is_plain_stays() -> None:
    """Counts as they are: nothing of them is lost."""
    assert by_openai((7, 5, 3, 2, 1)) == Usage(7, 5, 3, 2, 1)
    assert by_anthropic((7, 5, 3, 2, 1)) == Usage(12, 5, 3, 2, 1)
    assert by_gemini((7, 5, 3, 2, 1)) == Usage(8, 7, 3, 0, 2)
    assert gemini.decode_count(b'{"totalTokens":5}') == 5
