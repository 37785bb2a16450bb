"""`edgeq demo-llm`: a provider of models to try the LLM gateway against."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from edgeq.cli import demo
from edgeq.errors import EXIT_USAGE, StartError

if TYPE_CHECKING:
    from edgeq.llm.demo.app import Options

SUMMARY: Final = "run a provider of models that makes up its answers, to try the LLM gateway against"
EXAMPLES: Final = """\
examples:
  edgeq demo-llm --listen 127.0.0.1:9001 --behave latency=200ms,rate=30
  edgeq demo-llm --tokens-per-minute 10000 --requests-per-minute 60
  curl http://127.0.0.1:9001/v1/chat/completions -d '{"model": "demo",
    "messages": [{"role": "user", "content": "hello"}]}'
  curl -N http://127.0.0.1:9001/v1/chat/completions -d '{"model": "mock/rate=5,tokens=20", "stream": true,
    "messages": [{"role": "user", "content": "hello"}]}'

paths: OpenAI's /v1/chat/completions /v1/responses /v1/embeddings /v1/models; Anthropic's /v1/messages
  /v1/messages/count_tokens; Gemini's /v1beta/models/MODEL:generateContent (streamGenerateContent, countTokens,
  embedContent, batchEmbedContents); /metrics as vLLM; /stats: what was asked, refused, left, by key and model

directives (--behave, after a slash in a model's name, or in the header x-mock), separated by commas; through edgeq,
  which passes on no x-mock of its clients, in a target's model, or as x-mock in `headers` of [provider.NAME]:
  latency=200ms jitter=50ms     until the first token
  rate=30 tokens=64 think=20    tokens per second (0: at once), words of the answer, of reasoning before it
  say=words|echo|show           made up (JSON where a schema is given); the user's last text; the body of the request
  tools=2                       calls of tools, if the request has some
  input=N cached=N cache_write=N usage=on|off|last    what is told of tokens
  stop=length|refusal|pause|sequence                  why it ends
  window=8000                   a request of more tokens is too long
  error=429 retry_after=2s      a refusal with this status; error=quota: the money is gone
  fail=3 cut=3 reset=3 hang=3   after three events: an error event, a close, a reset, silence; hang=0: not even a head
  times=2 chance=0.1            only the first two requests for this model fail; only a tenth of them
  early split=7 crlf comments   head at once; segments of 7 bytes; CRLF; a comment before each event
  tag=NAME                      means nothing, and makes a model of its own
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to listen, what to do, what to limit."""
    demo.add_listen(parser, "127.0.0.1:9001")
    parser.add_argument("--behave", metavar="DIRECTIVES", default="", help="for all requests; see below")
    parser.add_argument(
        "--keys", metavar="KEY,...", default="", help="accept these only (others get 401); default: any"
    )
    parser.add_argument("--models", metavar="NAME,...", default="", help="listed at /v1/models; any is answered")
    parser.add_argument(
        "--tokens-per-minute", metavar="N", type=int, default=0, help="of each key and model, input and output together"
    )
    parser.add_argument("--requests-per-minute", metavar="N", type=int, default=0, help="of each key and model")
    parser.add_argument("--slots", metavar="N", type=int, default=0, help="requests worked on at once; more wait")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="of jitter and chance; default: %(default)s")


def run(args: argparse.Namespace) -> int:
    """Serve until stopped."""
    from edgeq.llm.demo import server_io

    options = _options(args)
    return demo.serve(args, "demo provider", lambda sock, with_parent: server_io.run(sock, options, with_parent))


def _options(args: argparse.Namespace) -> Options:
    from edgeq.llm.demo.app import MODELS, Options
    from edgeq.llm.demo.behaviour import DEFAULT, BadDirective, parse

    try:
        behaviour = parse(args.behave, DEFAULT)
    except BadDirective as error:
        raise StartError(f"--behave: {error}", EXIT_USAGE) from None
    for name in ("tokens_per_minute", "requests_per_minute", "slots"):
        if getattr(args, name) < 0:
            raise StartError(f"--{name.replace('_', '-')}: it is 0 (no limit) or more", EXIT_USAGE)
    return Options(
        behaviour=behaviour,
        keys=frozenset(key.encode() for key in _names(args.keys)),
        models=_names(args.models) or MODELS,
        requests_per_minute=args.requests_per_minute,
        tokens_per_minute=args.tokens_per_minute,
        slots=args.slots,
        seed=args.seed,
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
