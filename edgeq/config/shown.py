"""A configuration for people: every value by its key, as the file would write it, without secrets.

What is secret: the names in `tenant.weights` where tenants are known by a credential, since there they are written as
they are sent; values in `trace.headers` that are no names of secrets; keys and headers of providers; and in their URLs
the values of the query, as Gemini takes its key. Private keys are files that are named, and a URL may have no password,
so nothing else is.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Final, NamedTuple

import msgspec

from edgeq.config.credentials_io import ENVIRONMENT, PREFIX
from edgeq.config.lines import Path, show_path
from edgeq.config.providers import provider_of
from edgeq.config.schema import Config, Provider, Tenant, Trace
from edgeq.config.units import show
from edgeq.wire.fields import PRIVATE

MASK: Final = "***"
_QUERY_VALUE: Final = re.compile(r"(?:(?<=&)|^)(?!api-version=)([^=&]+=)?[^&]+")
"""Azure's version of its API is no secret, and good to know."""
_MAX_SHOWN: Final = 500
"""Characters of one value: an answer's body may be a whole page."""


class Leaf(NamedTuple):
    """One value: its key, as the file writes it; whether it is the default; and as it is."""

    key: str
    value: str
    is_default: bool
    raw: Any


def leaves(config: Config) -> list[Leaf]:
    """All values that are not tables; elements of lists by their name, or by their number. Upstreams that are made of
    a provider are left out: no file has them."""
    found: list[Leaf] = []
    made = provider_of(config)
    own = {name: one for name, one in config.upstream.items() if name not in made}
    _walk((), without_secrets(msgspec.structs.replace(config, upstream=own)), found)
    return found


def without_secrets(config: Config) -> Config:
    """The same with each secret as `MASK`."""
    if config.tenant.weights:
        config = msgspec.structs.replace(config, tenant=masked_tenant(config.tenant))
    if config.trace is not None and config.trace.headers:
        config = msgspec.structs.replace(config, trace=masked_trace(config.trace))
    if config.provider:
        masked = {name: masked_provider(one) for name, one in config.provider.items()}
        config = msgspec.structs.replace(config, provider=masked)
    return config


def masked_provider(provider: Provider) -> Provider:
    """[provider.NAME] with each secret that stands there itself as `MASK`."""
    keys = tuple(
        _masked(one) if isinstance(one, str) else msgspec.structs.replace(one, key=_masked(one.key))
        for one in provider.keys
    )
    headers = _masked_headers(provider.headers)
    return msgspec.structs.replace(provider, url=masked_url(provider.url), keys=keys, headers=headers)


def masked_url(url: str) -> str:
    """With each value of its query as `MASK`."""
    where, mark, query = url.partition("?")
    return where + mark + _QUERY_VALUE.sub(lambda found: (found[1] or "") + MASK, query)


def masked_value(path: Path, value: Any) -> Any:
    """What a live change sets at `path` ("provider", NAME, "url"), or the file says there."""
    is_url = path[:1] == ("provider",) and path[2:] == ("url",) and isinstance(value, str)
    return masked_url(value) if is_url else value


def masked_tenant(tenant: Tenant) -> Tenant:
    """[tenant] with its credentials as `MASK`, MASK2..: they still differ."""
    if not tenant.weights or not _has_secret_names(tenant):
        return tenant
    masked = {f"{MASK}{number or ''}": weight for number, weight in enumerate(tenant.weights.values())}
    return msgspec.structs.replace(tenant, weights=masked)


def masked_trace(trace: Trace) -> Trace:
    """[trace] with each value of a header that stands there itself as `MASK`."""
    return msgspec.structs.replace(trace, headers=_masked_headers(trace.headers))


def _masked_headers(headers: dict[str, str]) -> dict[str, str]:
    return {name: _masked(text) for name, text in headers.items()}


def _masked(text: str) -> str:
    """A name of a secret may be told, a secret may not."""
    return text if text.startswith((PREFIX, ENVIRONMENT)) else MASK


def is_secret(path: Path, config: Config) -> bool:
    """May neither a key nor its value be told? They are left to the file."""
    if len(path) > 2 and path[0] == "provider" and path[2] in ("keys", "headers"):
        return True
    return path[:2] == ("trace", "headers") or (path[:2] == ("tenant", "weights") and _has_secret_names(config.tenant))


def _has_secret_names(tenant: Tenant) -> bool:
    """Are tenants known by a credential?"""
    header = tenant.key.partition(":")[2].strip().lower().encode() if tenant.key.startswith("header:") else b""
    return tenant.key == "key" or header in PRIVATE


@functools.cache
def _fields(table: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """msgspec looks at a class anew each time, which takes a thousand times as long."""
    return msgspec.structs.fields(table)


def _default_of(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _walk(path: Path, value: Any, found: list[Leaf], default: Any = msgspec.NODEFAULT) -> None:
    if isinstance(value, msgspec.Struct):
        for field in _fields(type(value)):
            same = getattr(default, field.name) if isinstance(default, msgspec.Struct) else _default_of(field)
            _walk((*path, field.encode_name), getattr(value, field.name), found, same)
    elif isinstance(value, dict) and any(isinstance(one, msgspec.Struct) for one in value.values()):
        for name, one in value.items():
            _walk((*path, name), one, found)
    elif isinstance(value, tuple) and any(isinstance(one, msgspec.Struct) for one in value):
        for number, one in enumerate(value):
            name = getattr(one, "name", "") if isinstance(one, msgspec.Struct) else ""
            _walk((*path, name or number), one, found)
    else:
        text = show(value)
        text = text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + ".."
        found.append(Leaf(show_path(path), text, value == default, value))
