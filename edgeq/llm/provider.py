"""What a provider's refusal or failure means: for the client, for the next target, for the key.

    the caller's own fault (400, 413, 422)     -> passed on, nobody else is asked; what Anthropic says of a conversation
                                                  that it holds (404, too), by which its SDK sends all of it, is one
    this key's limit, quota or right           -> another key or target; the key rests
    no such model, or not for this key         -> another key or target; after some in a row this one rests
    403 of what the request says or refers to  -> the caller's own fault, or one of them takes a key from all
    the provider's own trouble                 -> another key or target; breaker and limit learn of it
    no answer at all, though it says it is one -> the same

Source: shared reference, llm.md 4.4.
"""

from __future__ import annotations

from typing import Final

from edgeq.llm import message
from edgeq.llm.message import Failed

NOT_LET_IN: Final = "the provider does not let the gateway in"
QUOTA_GONE: Final = "the gateway's quota at the provider is used up"
_THREAD: Final = '"error_code":"thread_'
_NO_MODEL: Final = ("model_not_found", "unknown_url", "DeploymentNotFound")
_OF_REQUEST: Final = ("usage guidelines", "input was flagged", "access the file", "cachedcontent")
"""Of what a 403 is said that is about the request: xAI and OpenRouter of what it says, Gemini of what it refers to."""
_NOT_OF_MODEL: Final = ("file", "provider")
"""Of what else a 404 is said: what the request refers to, or wants of OpenRouter ("No allowed providers are ..")."""
_OUR_TEAM: Final = " Team: "
"""Then xAI tells whose key it was."""
_LONGEST: Final = 150
"""Characters of its message."""


class Verdict:
    """`reason`: a token of `edgeq.reasons`; empty: the answer is passed on as the client's own fault."""

    __slots__ = ("detail", "reason")

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail


def told(failed: Failed, message: str) -> str:
    """One sentence about what a provider has said; `message` may be empty."""
    said = "the provider's answer was an error" if failed.is_within else f"the provider said {failed.status}"
    return f"{said}: {message[:_LONGEST]}" if message else said


def judge(failed: Failed) -> Verdict:
    """What comes of an answer of 300 or more, or of an error within another one. `failed` is changed where it is the
    caller's own fault by another status: to what he is to be told."""
    if failed.kind == message.BROKEN:
        return Verdict("upstream_protocol_error", failed.message)
    status = failed.status
    said = told(failed, failed.message)
    if failed.kind == message.BILLING or status == 402:
        # "You exceeded your quota" is about our account, and would be taken for his by whoever reads it.
        return Verdict("upstream_quota", f"{QUOTA_GONE}: {told(failed, '')}")
    if status == 429 or failed.kind == message.RATE:
        return Verdict("upstream_rate_limit", said)
    if status == 403 and _is_of_request(failed):
        failed.kind = message.INVALID
        failed.status = 400
        failed.message = failed.message.partition(_OUR_TEAM)[0]
        return Verdict("", told(failed, failed.message))
    if status == 403 and has_no_model(failed):
        return Verdict("upstream_error", f"{told(failed, '')}, not of its key there")
    if status in (401, 403) or failed.kind == message.AUTHENTICATION:  # Gemini says 400
        # What the provider says of our key is no business of the client's, who may think of his own.
        said = told(failed, "")
        return Verdict("upstream_auth", f"{NOT_LET_IN}: {said}, of its key there, which is not yours")
    if status in (503, 529) or failed.kind == message.OVERLOADED:
        return Verdict("upstream_overloaded", said)
    if status in (400, 413, 422) or _THREAD in failed.details:
        return Verdict("", said)
    return Verdict("upstream_error", said)


def has_no_model(failed: Failed) -> bool:
    """Does it say that the target is not there: a model that is mistyped, retired or not granted to this key (OpenAI
    says 403 then), or a wrong URL? Not what the request refers to, a file for example. A page instead of an error is no
    provider's: of a wrong URL, or of a wall before it that some requests do not pass."""
    if failed.status not in (403, 404) or failed.is_within:
        return False
    if failed.code in _NO_MODEL:
        return True
    said = failed.message.lower()
    if "model" in said:
        return not (_is_of_request(failed) or any(word in said for word in _NOT_OF_MODEL))
    return not said


def _is_of_request(failed: Failed) -> bool:
    """Does it say that it is not let in for what it has in it? Then it says nothing of the key."""
    said = failed.message.lower()
    return any(words in said for words in _OF_REQUEST)
