"""Rests of providers' keys: where each stands in the table of arrivals, and how somebody ends one before its time.

A gate reads there until when it lets nobody in, as all workers do; so a rest that is ended is over for all of them, and
who waits is let in with their next tick. A rest is of who was asked, and how: with another secret or URL there is none.
What a provider has told of its limits (hearing.py) ends in the same way, by the moment until which it counts no more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from edgeq.board.gcra_table import GcraTable
from edgeq.board.keyed import KeyedCounts
from edgeq.board.layout import key_hash
from edgeq.config.credentials_io import read_header
from edgeq.config.providers import provider_keys, provider_of, upstream_name
from edgeq.config.schema import Config, Provider
from edgeq.config.schema_llm import ProviderKey
from edgeq.llm.meter import INPUT, KINDS, OUTPUT, REQUESTS, TARGET, TOKENS

TIMES: Final = 7
"""The last bits of the moment until which one model at a key rests: how often in a row it does as it has failed; 0: the
provider's limit is reached. They stay when the moment has passed, until a good answer comes."""
OF_TARGET: Final = ("upstream_rate_limit", "circuit_open")
"""Why one model at a key rests; else all of them do."""
HEARD_KINDS: Final = (REQUESTS, TOKENS, INPUT, OUTPUT)
UNHEARD: Final = "circuit_open"
"""By what one fails, where a worker knows only that it does: another one has heard it."""


def of_key(key: str, way: bytes) -> int:
    """Of a key of a provider, by the name of its upstream: no model is asked with it. `way`: see `way_of`."""
    return key_hash(b"llm key pause", key.encode(), way)


def of_target(target: str, way: bytes) -> int:
    """Of one model at it, KEY/MODEL."""
    return key_hash(b"llm pause", target.encode(), way)


def of_heard(target: str, way: bytes) -> int:
    """Of what its provider tells of its limits, by `HEARD_KINDS`: in the row of each worker, beside meters."""
    return key_hash(b"llm heard", target.encode(), way)


def of_forgotten(target: str, way: bytes) -> int:
    """Of the moment until which that counts no more."""
    return key_hash(b"llm forgotten", target.encode(), way)


def way_of(provider: Provider, key: ProviderKey) -> bytes:
    """Who is asked, and how: what was said, or failed, with another URL or secret says nothing of this one.
    Raises: ValueError for a secret that cannot be read."""
    headers = [f"{name}: {read_header(text)}" for name, text in provider.headers.items()]
    secret = read_header(key.key) if key.key else ""
    told = (provider.dialect, provider.url, *provider.endpoints, repr(provider.tls), *headers, secret)
    return "\n".join(told).encode()


def end_rests(config: Config, arrivals: GcraTable, text: str, now_ns: int) -> list[str] | None:
    """End what keeps something from being asked: a provider (`openai`, `provider/openai`), a key (`openai-2`,
    `upstream/openai-2`) with its models, or one model at either (`openai/gpt-4o`, `target/openai-2/gpt-4o`) with the
    key; what is a name of both means the key. A model that was `failing` after its rest is not any more. Returns: the
    resources of which that is so; None if nothing has that name."""
    found = {one.resource: one.rest for one in _places(config) if text in one.names}
    ended = []
    for resource, place in found.items():
        until_ns = arrivals.get(place)
        fails = until_ns & TIMES if resource.startswith(f"{KINDS[TARGET]}/") else 0
        if until_ns > now_ns or fails:
            arrivals.hasten(place, min(until_ns, now_ns) & ~TIMES)
            ended.append(resource)
    return ended if found else None


def end_heard(config: Config, arrivals: GcraTable, rows: Collection[KeyedCounts], text: str, now_ns: int) -> list[str]:
    """Have the workers forget what providers have told of the limits of what has this name, as in `end_rests`. `rows`:
    the meters of each worker. Returns: the models at keys of which one keeps to such a limit."""
    told = []
    for one in _places(config):
        if one.heard and text in one.names and any(row.value(one.heard, kind) for row in rows for kind in HEARD_KINDS):
            arrivals.delay(one.forgotten, now_ns)
            told.append(one.resource)
    return told


def moments(config: Config, arrivals: GcraTable) -> dict[str, tuple[int, int]]:
    """Until when each model at a key, KEY/MODEL, is not asked: for itself, and with its key; both may be over. Empty: a
    secret cannot be read now."""
    found: dict[str, tuple[int, int]] = {}
    of_whole = 0
    try:
        for one in _places(config):
            kind, _, name = one.resource.partition("/")
            if kind == KINDS[TARGET]:
                found[name] = (arrivals.get(one.rest), of_whole)
            else:  # a key comes before its models
                of_whole = arrivals.get(one.rest)
    except ValueError:
        return {}
    return found


def names(config: Config) -> list[str]:
    """What can be named."""
    return list(dict.fromkeys(name for one in _places(config) for name in one.names))


class _Place(NamedTuple):
    """Of a key, or of a model at it."""

    names: tuple[str, ...]
    """By which it is meant."""
    resource: str
    rest: int
    """Where that stands, and so what follows."""
    heard: int = 0
    """0: of a whole key nothing is told."""
    forgotten: int = 0


def _places(config: Config) -> Iterator[_Place]:
    """Of each key, and then of each model at it."""
    made = provider_of(config)
    for name, provider in config.provider.items():
        # By its own name, too, where no key of any provider is called so.
        whole_names = (f"provider/{name}",) if name in made else (f"provider/{name}", name)
        models = [
            target.model or model
            for model, one in config.model.items()
            for target in one.targets
            if target.provider == name
        ]
        for key in provider_keys(provider):
            full, way = upstream_name(name, provider, key), way_of(provider, key)
            whole = (full, f"upstream/{full}", *whole_names)
            called = {
                f"{full}/{model}": [
                    text
                    for one in dict.fromkeys((full, *whole_names[1:]))
                    for text in (f"{one}/{model}", f"{KINDS[TARGET]}/{one}/{model}")
                ]
                for model in dict.fromkeys(models)
            }
            of_models = [text for own in called.values() for text in own]
            yield _Place((*whole, *of_models), f"upstream/{full}", of_key(full, way))
            for one, own in called.items():
                target = f"{KINDS[TARGET]}/{one}"
                rest = of_target(one, way)
                yield _Place((*whole, *own), target, rest, of_heard(one, way), of_forgotten(one, way))
