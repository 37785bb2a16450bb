"""Who is asking: the name by which a request's rates, shares and limits are counted.

A tenant is what `tenant.key` says: a header, a credential, the client's address, or the route. Who does not say who it
is belongs to the tenant without a name, together with all others who do not, and so does who says it twice: of two
values the upstream might believe the other one.

Where there are [accounts], a credential that is a virtual key belongs to the tenant of its account, by his name.

Any other name that came from a credential is a digest of it, so that neither logs nor `edgeq show` give it away.

The fields of a head may be shared with other heads that differ in a value (`wire.head.RequestFields`), and they have no
values of what is only passed on. So a value is looked up in the head's own bytes, and remembered on the head.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from edgeq.listener.peer import client_key, plain_host
from edgeq.wire.fields import PRIVATE
from edgeq.wire.head import field_value

if TYPE_CHECKING:
    from edgeq.listener.connection import Downstream
    from edgeq.llm.accounts import AccountsHolder
    from edgeq.policy.trust import Networks
    from edgeq.wire.head import RequestFields, RequestHead

HEADER: Final = 0
CREDENTIAL: Final = 1
CLIENT: Final = 2
ROUTE: Final = 3

ANONYMOUS: Final = b""
_CREDENTIALS: Final = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
"""Fields that carry a key, in the order in which they are asked."""
_MAX_NAME: Final = 256
"""Longer values are replaced by their digest: names are kept for as long as somebody waits or is counted."""
_MAX_HOPS: Final = 32
_KEY_BITS: Final = (1 << 62) - 1
"""Python's ints of this size need no memory of their own in compiled code."""
_MAX_KEYS: Final = 4096

_keys: Final[dict[bytes, int]] = {}
_digests: Final[dict[int, bytes]] = {}
"""By the hash of a value, not by the value: credentials are not kept. Python's hash has a secret key (SipHash), so
nobody can make two credentials meet, and by chance two of a million do so once in 30 million processes."""


class TenantKey:
    """`tenant.key`, made ready: how the tenant of a request is found."""

    __slots__ = ("_private", "accounts", "kind", "name", "weights")

    def __init__(self, key: str, weights: dict[str, int] | None = None, accounts: AccountsHolder | None = None) -> None:
        """Args: key is "header:NAME", "key", "client-address" or "route"; weights are shares by what a request says,
        or where there are accounts by tenants' names.

        Raises: ValueError for another key.
        """
        self.name = b""
        self._private: bool = False
        self.accounts: AccountsHolder | None = accounts if key == "key" else None
        if key.startswith("header:"):
            self.kind: int = HEADER
            self.name = key[7:].strip().lower().encode("ascii", "replace")
            self._private = self.name in PRIVATE
        elif key == "key":
            self.kind = CREDENTIAL
            self._private = True
        elif key == "client-address":
            self.kind = CLIENT
        elif key == "route":
            self.kind = ROUTE
        else:
            raise ValueError('expected "header:NAME", "key", "client-address" or "route"')
        self.weights: dict[bytes, float] = {}
        """Of the tenants, by name; others weigh 1."""
        if weights is not None:
            for value, weight in weights.items():
                tenant = value.encode() if self.accounts is not None else self.called(value.encode())
                self.weights[tenant] = float(weight)

    def weight(self, tenant: bytes) -> float:
        """A tenant's share in fair queues: as the configuration says, else as his account does, else 1."""
        known = self.weights.get(tenant, 0.0)
        if known:
            return known
        return self.accounts.current.weights.get(tenant, 1.0) if self.accounts is not None else 1.0

    def of_head(self, head: RequestHead) -> bytes:
        """The tenant that a head names; for the kinds HEADER and CREDENTIAL."""
        if head.tenant_key is self:
            return head.tenant
        tenant = self._find(head)
        head.tenant = tenant
        head.tenant_key = self
        return tenant

    def called(self, value: bytes) -> bytes:
        """The tenant's name for what a request, or the configuration, calls it by."""
        if not value:
            return ANONYMOUS
        if not self._private and len(value) <= _MAX_NAME:
            return value
        mark = hash(value)
        known = _digests.get(mark, b"")
        if not known:
            known = b"key-" + blake2b(value, digest_size=8).hexdigest().encode()
            if len(_digests) >= _MAX_KEYS:
                _digests.clear()
            _digests[mark] = known
        return known

    def _find(self, head: RequestHead) -> bytes:
        if self.kind == HEADER:
            return self.called(field_value(head, self.name))
        value = credential_of(head)
        if not value:
            return ANONYMOUS
        named = self.accounts.tenant_of(value) if self.accounts is not None else ANONYMOUS
        return named or self.called(value)


def credential_of(head: RequestHead) -> bytes:
    """The credential that a request brings, in whichever of the usual fields; nothing if it brings none."""
    for name in _CREDENTIALS:
        value = field_value(head, name)
        if value and name == b"authorization":
            # The same key is the same tenant, in whichever field it comes (RFC 6750 2.1).
            if value[:7] == b"Bearer ":  # as nearly all write it
                value = value[7:].strip(b" \t")
            else:
                scheme, _, rest = value.partition(b" ")
                if scheme.lower() == b"bearer":
                    value = rest.strip(b" \t")
        if value:
            return value
    return b""


def client_of(down: Downstream, fields: RequestFields) -> bytes:
    """The client's address as limits count it: an IPv6 client by its network.

    Behind trusted peers it is the last address in X-Forwarded-For (or Forwarded) that is not one of theirs: what stands
    before it was said by the client itself.
    """
    host = down.peer.client_host
    settings = down.settings
    if down.trusted and settings.trusted is not None:
        host = _forwarded_for(fields, host, settings.trusted)
    return client_key(host, settings.ipv6_client_prefix).encode()


def _forwarded_for(fields: RequestFields, peer_host: str, trusted: Networks) -> str:
    hops = fields.x_forwarded_for.split(b",")
    if not fields.x_forwarded_for:
        hops = [_for_parameter(element) for element in fields.forwarded.split(b",")]
    last = peer_host
    for index in range(min(len(hops), _MAX_HOPS)):
        host = _host_of(hops[len(hops) - 1 - index])
        if not host:
            break
        last = host
        if host not in trusted:
            break
    return last


def _for_parameter(element: bytes) -> bytes:
    """The node of a Forwarded element (RFC 7239 4)."""
    for pair in element.split(b";"):
        name, _, value = pair.strip(b" \t").partition(b"=")
        if name.lower() == b"for":
            return value.strip(b'"')
    return b""


def _host_of(node: bytes) -> str:
    """An address without brackets and port; other names as they are."""
    node = node.strip(b" \t")[:64]
    if node[:1] == b"[":
        node = node[1:].partition(b"]")[0]
    elif node.count(b":") == 1:
        node = node.partition(b":")[0]
    return plain_host(node.decode("latin-1").lower())


def key_of(name: bytes) -> int:
    """A number for a name, the same in every process (Python's own hash is not): 62 bits, never 0."""
    known = _keys.get(name, 0)
    if known:
        return known
    key = (int.from_bytes(blake2b(name, digest_size=8).digest(), "little") & _KEY_BITS) or 1
    if len(_keys) >= _MAX_KEYS:
        _keys.clear()
    _keys[name] = key
    return key
