"""Every refusal and failure that edgeq can name: one closed table, used by answers, logs, metrics and documentation.

A refused request carries exactly one `reason` (a token of this table) and a `resource` (what it was refused by, for
example ``upstream/pay:pool`` or ``listener/:8080:request_line``). Whose doing it is:

    C  the client's own request or quota      S  shed by this gateway
    U  the upstream                           K  the kernel: no answer is possible

429 means only that the caller's own quota is the cause, 503 that shared capacity is; 504 that time ran out, 502 that
the upstream misbehaved. So a client that gets 503 may blame nobody's quota, and one that gets 429 only its own.

Sources: RFC 9110 15 (status), RFC 9209 (Proxy-Status errors), RFC 9457 (problem types), and for three of those types
draft-ietf-httpapi-ratelimit-headers-10, section 6.
"""

from __future__ import annotations

import sys
from typing import Final, Literal, NamedTuple

Fault = Literal["C", "S", "U", "K"]
RetryAfter = Literal["none", "exact", "adaptive", "soon"]

_REGISTRY: Final = "https://iana.org/assignments/http-problem-types#"
QUOTA: Final = _REGISTRY + "quota-exceeded"
CAPACITY: Final = _REGISTRY + "temporary-reduced-capacity"
BLANK: Final = "about:blank"
"""Says no more than the status does (RFC 9457 4.2.1)."""


class Reason(NamedTuple):
    """One row: how a reason looks from outside.

    `status` 0 means that edgeq makes no answer for it (only log and counters show it). `retry_after` is the kind of
    Retry-After: none; exact (the moment is known: a rate's, a breaker's); adaptive (estimated by who refuses, from the
    measured drain of its queue); soon (another process takes over at once). `problem` is the type of the problem
    document, `hint` is what an operator is told, `says` what the client is, where it is not the same.
    """

    token: str
    fault: Fault
    status: int
    retry_after: RetryAfter
    proxy_status: str
    problem: str
    title: str
    hint: str
    says: str = ""

    def told(self) -> str:
        """To a client of whom nothing more is known."""
        return self.says or self.hint


_ROWS: Final = (
    # the client's message
    Reason("request_malformed", "C", 400, "none", "http_request_error", BLANK, "Malformed request", "the request breaks RFC 9112"),
    Reason("request_ambiguous", "C", 400, "none", "http_request_error", BLANK, "Ambiguous request", "two readings of one message (possible request smuggling) or of one path (a way past a route)"),
    Reason("host_invalid", "C", 400, "none", "http_request_error", BLANK, "Missing or invalid Host", "exactly one valid Host is required"),
    Reason("request_line_too_long", "C", 414, "none", "http_request_error", BLANK, "Request line too long", "limits.request_line"),
    Reason("header_bytes_exceeded", "C", 431, "none", "http_request_error", BLANK, "Header section too large", "limits.header_bytes"),
    Reason("header_count_exceeded", "C", 431, "none", "http_request_error", BLANK, "Too many header fields", "limits.header_count"),
    Reason("trailer_bytes_exceeded", "C", 431, "none", "http_request_error", BLANK, "Trailer section too large", "limits.trailer_bytes"),
    Reason("body_too_large", "C", 413, "none", "http_request_error", BLANK, "Content too large", "limits.body_bytes or the route's body_bytes", "the body of the request is larger than is taken here"),
    Reason("method_refused", "C", 405, "none", "http_request_denied", BLANK, "Method not allowed", "CONNECT is not served"),
    Reason("expectation_unknown", "C", 417, "none", "http_request_error", BLANK, "Expectation failed", "only 100-continue is known"),
    Reason("transfer_coding_unknown", "C", 501, "none", "http_request_error", BLANK, "Transfer coding not implemented", "only chunked is known"),
    Reason("version_unsupported", "C", 505, "none", "http_request_error", BLANK, "HTTP version not supported", "only HTTP/1 is served"),
    Reason("head_timeout", "C", 408, "none", "http_request_error", BLANK, "Request head took too long", "timeouts.head, or limits.min_head_rate", "the head of the request did not come in time, or too slowly"),
    Reason("body_timeout", "C", 408, "none", "http_request_error", BLANK, "Request body took too long", "timeouts.body, or limits.min_body_rate", "the body of the request did not come in time, or too slowly"),
    Reason("client_gone", "C", 0, "none", "", BLANK, "Client left", "left before its answer was complete (499 in the log)"),
    Reason("client_stalled", "C", 0, "none", "", BLANK, "Client reads too slowly", "timeouts.write, or limits.min_answer_rate"),
    Reason("handshake_failed", "C", 0, "none", "", BLANK, "TLS handshake failed", "protocol version, name or certificate"),
    Reason("proxy_header_invalid", "C", 0, "none", "", BLANK, "PROXY header missing or invalid", "proxy_protocol_from lists a peer that sends none"),
    # the client's quota
    Reason("rate_limited", "C", 429, "exact", "proxy_internal_response", QUOTA, "Too many requests", "the resource names the [[rate]], or whose limit of requests it is; that key asks for more than that allows", "you ask more often than you may: ask again when Retry-After says"),
    Reason("concurrency_limit_client", "C", 429, "adaptive", "proxy_internal_response", QUOTA, "Too many requests at once", "tenant.limit, or the limit that the resource names: as many requests are in flight as this tenant or key may have, or as the rest of its budget pays for", "you have as many requests in flight as you may: ask again when one has ended"),
    Reason("fair_share_exceeded", "C", 429, "adaptive", "proxy_internal_response", QUOTA, "Fair share exceeded", "this tenant fills its part of the queue; others still get through", "as many of your requests wait as you may have there: ask again when Retry-After says"),
    Reason("token_limit", "C", 429, "exact", "proxy_internal_response", QUOTA, "Too many tokens", "the resource names whose limit: that of the tenant, the key or the prompt; requests for models are counted by what they will use, and corrected by what they used"),
    Reason("request_over_limit", "C", 429, "none", "proxy_internal_response", QUOTA, "Request larger than the limit", "its input alone has more tokens than the limit of a whole minute: waiting does not help"),
    Reason("budget_exhausted", "C", 429, "none", "proxy_internal_response", QUOTA, "Over budget", "money_per_day or money_per_month of the tenant, key or prompt is spent, or less of it is left than this request may cost"),
    Reason("rate_limited_shared", "S", 503, "exact", "proxy_internal_response", CAPACITY, "Too many requests for a limit that all share", "the resource names the [[rate]], or the model or provider's key that has a limit; all clients together ask for more than that allows"),
    Reason("token_limit_shared", "S", 503, "exact", "proxy_internal_response", CAPACITY, "Too many tokens for a limit that all share", "the limits of a model, or of a provider's key, are used up by all clients together, or those who wait for them have taken what comes free within provider.wait"),
    Reason("budget_exhausted_shared", "S", 503, "none", "proxy_internal_response", CAPACITY, "Over a budget that all share", "money_per_day or money_per_month of a model, or of a provider's key, is spent"),
    # listener and worker
    Reason("accept_backlog_overflow", "K", 0, "none", "", BLANK, "Accept queue overflow", "the kernel dropped connections: add workers if loop lag is high, else raise the listener's backlog"),
    Reason("conn_limit_listener", "S", 503, "adaptive", "proxy_internal_response", CAPACITY, "Too many connections", "raise max_connections or shorten keepalive", "too many connections are open: come again in a moment"),
    Reason("conn_limit_client", "C", 429, "adaptive", "proxy_internal_response", QUOTA, "Too many connections from this address", "max_connections_per_client", "as many connections are open from your address as it may have"),
    Reason("fd_exhausted", "S", 503, "adaptive", "proxy_internal_error", CAPACITY, "Out of file descriptors", "raise LimitNOFILE", "the gateway has no room left for the moment: come again when Retry-After says"),
    Reason("loop_lag", "S", 503, "adaptive", "proxy_internal_response", CAPACITY, "Gateway overloaded", "this worker has no processor time left: add workers", "the gateway is overloaded for the moment: come again when Retry-After says"),
    Reason("memory_pressure", "S", 503, "adaptive", "proxy_internal_response", CAPACITY, "Gateway short of memory", "look which routes hold bytes in buffers, or raise the memory limit; of bodies for models, protect.model_bodies", "the gateway has no room left for the moment: come again when Retry-After says"),
    Reason("draining", "S", 503, "soon", "proxy_internal_response", BLANK, "Stopping", "a reload or stop is in progress", "the gateway stops, or starts anew: come again in a moment"),
    # route and configuration
    Reason("no_route", "S", 404, "none", "destination_not_found", BLANK, "No route", "no [[route]] matches host and path", "nothing is served under this host and path"),
    Reason("config_error", "S", 500, "none", "proxy_configuration_error", BLANK, "Configuration error", "a file that the configuration names could not be read by a worker that was started again: see upstream_unusable in the event log", "the gateway cannot do that for now: who runs it finds why in its log"),
    Reason("internal_error", "S", 500, "none", "proxy_internal_error", BLANK, "Internal error", "a defect of this gateway: see the event log", "the gateway has failed: who runs it finds why in its log, by the id of the request"),
    Reason("model_not_found", "C", 404, "none", "http_request_denied", BLANK, "No such model", "the request names a model that its route, or its key, does not serve; GET /v1/models lists them"),
    Reason("not_cached", "C", 504, "none", "http_request_denied", BLANK, "Not in the cache", "the client takes only what the cache of the route or prompt has (Cache-Control: only-if-cached, RFC 9111 5.2.1.7)"),
    # waiting
    Reason("queue_full", "S", 503, "adaptive", "connection_limit_reached", CAPACITY, "Queue full", "more requests wait than the queue may hold"),
    Reason("queue_timeout", "S", 503, "adaptive", "connection_limit_reached", CAPACITY, "Waited too long in a queue", "nothing became free in time"),
    Reason("queue_codel_drop", "S", 503, "adaptive", "connection_limit_reached", CAPACITY, "Queue stands", "the queue has not been short for an interval: its wait is kept near the target"),
    Reason("queue_displaced", "S", 503, "adaptive", "connection_limit_reached", CAPACITY, "Displaced from the queue", "no more may wait, or for no more tokens, and a newer request, or one of a tenant that has fewer, took its place"),
    Reason("priority_shed", "S", 503, "adaptive", "connection_limit_reached", CAPACITY, "Shed by priority", "the queue is full, and requests of a higher class have its places"),
    Reason("adaptive_limit", "S", 503, "adaptive", "connection_limit_reached", CAPACITY, "Learned limit reached", "as many requests are in flight as the upstream was found to work on at once, and queue.max is 0"),
    Reason("deadline_infeasible", "S", 503, "adaptive", "connection_limit_reached", CAPACITY, "Deadline cannot be met", "predicted wait and service take longer than the request has left"),
    Reason("deadline_expired", "S", 504, "none", "http_response_timeout", BLANK, "Deadline expired", "the route's timeout for the whole request, or the deadline that came with it"),
    # upstream
    Reason("circuit_open", "U", 503, "exact", "destination_unavailable", CAPACITY, "Circuit open", "the upstream has failed too often, or one model at a provider's key; see what tripped the breaker, and when", "who would answer has failed too often lately, and is left alone for a moment"),
    Reason("upstream_saturated", "U", 503, "adaptive", "connection_limit_reached", CAPACITY, "Upstream saturated", "every living endpoint is at its limit: none of them is dead"),
    Reason("upstream_none_healthy", "U", 503, "adaptive", "destination_unavailable", BLANK, "No endpoint available", "no address of the upstream is known or alive; of a model, all its targets are disabled"),
    Reason("upstream_connect_refused", "U", 502, "none", "connection_refused", BLANK, "Upstream refused the connection", "nothing listens there"),
    Reason("upstream_connect_timeout", "U", 504, "none", "connection_timeout", BLANK, "Upstream did not accept in time", "network, firewall or a full backlog"),
    Reason("upstream_connect_failed", "U", 502, "none", "destination_ip_unroutable", BLANK, "Upstream cannot be reached", "routing or address"),
    Reason("upstream_backlog_full", "U", 504, "adaptive", "connection_timeout", CAPACITY, "Upstream's accept queue is full", "its listen backlog overflows"),
    Reason("upstream_port_exhausted", "S", 503, "adaptive", "proxy_internal_error", CAPACITY, "No local port left", "enable keep-alive or add source addresses"),
    Reason("upstream_tls_failed", "U", 502, "none", "tls_certificate_error", BLANK, "TLS with the upstream failed", "certificate, name or protocol version"),
    Reason("upstream_timeout", "U", 504, "none", "http_response_timeout", BLANK, "Upstream did not answer in time", "timeouts.first_byte, timeouts.body or the route's retry.per_try_timeout; of a model's stream llm.first_token and llm.between_tokens"),
    Reason("upstream_reset", "U", 502, "none", "connection_terminated", BLANK, "Upstream closed the connection", "before or within its answer"),
    Reason("upstream_truncated", "U", 502, "none", "http_response_incomplete", BLANK, "Upstream's answer was cut", "it closed within the body"),
    Reason("upstream_protocol_error", "U", 502, "none", "http_protocol_error", BLANK, "Upstream's answer is not valid", "what is wrong with it `edgeq explain REQUEST-ID` tells; of a model the event `provider_model_fails` does, too", "what it has sent is no valid answer"),
    Reason("upstream_shed", "U", 0, "none", "", BLANK, "Upstream refused", "the upstream itself said 429 or 503, and its answer was passed on"),
    Reason("upstream_failed", "U", 0, "none", "", BLANK, "Upstream answered with a failure", "its answer of 500 or more was replaced by the route's fallback or a stale one"),
    # models
    Reason("model_request_invalid", "C", 400, "none", "http_request_error", BLANK, "Request for a model is not valid", "the parameter that is named: it makes no sense, or the target cannot be told (llm.mode = \"lenient\" drops what can be dropped)"),
    Reason("key_missing", "C", 401, "none", "http_request_denied", BLANK, "No key", "[accounts] is configured: `edgeq keys create` makes a key", "no key came with the request: send yours as \"authorization: Bearer KEY\", or as x-api-key"),
    Reason("key_unknown", "C", 401, "none", "http_request_denied", BLANK, "Unknown key", "the key was mistyped, or belongs to another gateway: `edgeq keys list`", "there is no such key here: it was mistyped, or is one of somebody else"),
    Reason("key_revoked", "C", 401, "none", "http_request_denied", BLANK, "Key revoked", "`edgeq keys list`", "this key was revoked: who gave it to you can give you another one"),
    Reason("key_expired", "C", 401, "none", "http_request_denied", BLANK, "Key expired", "`edgeq keys list`: its time is over (`edgeq keys set ID --expires` gives it more), or it was rotated", "this key has expired: who gave it to you can give you another one"),
    Reason("model_not_allowed", "C", 403, "none", "http_request_denied", BLANK, "Model not allowed for this key", "`edgeq keys set ID --models`", "this key may not use the model"),
    Reason("answer_not_json", "U", 502, "none", "http_response_incomplete", BLANK, "The model's answer is not JSON", "the prompt promises JSON, and the model has written something else or was cut at max_tokens: the answer is paid, and no failure of the provider's; give the prompt a schema, more max_tokens or another model"),
    Reason("answer_too_large", "U", 502, "none", "http_response_incomplete", BLANK, "The model's answer is too large", "an answer that is no stream is held until its end, 64 MiB at most; it is paid, as far as is known, and no failure of the provider's: ask for less at once, or for a stream"),
    Reason("upstream_error", "U", 502, "none", "http_response_incomplete", BLANK, "The provider failed", "what it said `edgeq explain REQUEST-ID` tells, and the event `provider_model_fails`", "the provider of the model has failed"),
    Reason("upstream_rate_limit", "U", 503, "exact", "connection_limit_reached", CAPACITY, "Provider's rate limit", "the provider has answered 429, or told that no request is left: this model at this key is paused until its limit resets; set provider.limits to keep below it"),
    Reason("upstream_quota", "U", 503, "exact", "connection_limit_reached", CAPACITY, "Provider's quota exhausted", "the account at the provider has no credit left: all models at this key are paused for a while"),
    Reason("upstream_auth", "U", 502, "exact", "proxy_configuration_error", BLANK, "Provider refuses our key", "401 or 403 (Gemini: 400) to the gateway's own key: check provider.keys; the key is paused for a while"),
    Reason("upstream_overloaded", "U", 503, "adaptive", "connection_limit_reached", CAPACITY, "Provider overloaded", "the provider has answered 503 or 529"),
    Reason("retry_budget_exhausted", "S", 0, "none", "", BLANK, "Not tried again", "of the requests of the upstream that failed, as many as its retry_budget allows are second tries already; the answer is that of the last try"),
    Reason("dns_error", "U", 502, "none", "dns_error", BLANK, "Upstream's name does not resolve", "check the name and [dns]"),
    Reason("dns_timeout", "U", 504, "none", "dns_timeout", BLANK, "Name lookup timed out", "check [dns] nameservers"),
)

REASONS: Final[dict[str, Reason]] = {row.token: row for row in _ROWS}



def may_be_told(reason: str) -> bool:
    """May the detail of one be told to operators? It is so where edgeq has refused for a limit or for what it is short
    of, or the upstream has failed; of others it may have words of the client's."""
    row = REASONS[reason]
    return row.fault == "U" or row.problem != BLANK


INDEX: Final[dict[str, int]] = {row.token: number for number, row in enumerate(_ROWS)}
"""The place of a reason in arrays of counters; holds within one version of edgeq."""

OVERLOAD: Final = frozenset(
    (
        "upstream_timeout",
        "upstream_reset",
        "upstream_truncated",
        "upstream_connect_timeout",
        "upstream_backlog_full",
        "upstream_saturated",
        "upstream_shed",
        "upstream_overloaded",
        "upstream_rate_limit",
        "deadline_expired",
        "client_gone",
    )
)
"""What may come of too many requests at an upstream, once it has them; other failures say nothing about its limit."""

_INTRODUCTION: Final = """\
# Reasons

Made by `python -m edgeq.reasons > docs/reasons.md`.

Every request that edgeq refuses, or that fails, has exactly one reason, and a resource: what it was refused by, such as
`upstream/api:queue`, `route/checkout`, `listener/0.0.0.0:8080`, `rate/plan`, `worker:loop_lag`. Both are in the answer
(`application/problem+json`, and `Proxy-Status`), in the access log (`edgeq.reason`, `edgeq.resource`), and in what a
worker counts; of a connection that never became a request the event log tells. A resource has names of upstreams, and of
an endpoint its address: with `forward.tell_resource = false` clients hear the reason alone.

429 means that the caller's own quota is the cause, 503 that shared capacity is; 504 that time ran out, 502 that the
upstream misbehaved. Anthropic's clients are told what their SDK knows: 402 in place of 429 where a budget is spent
(`budget_exhausted`), and 529 in place of 503. Without a status edgeq makes no answer: nobody could read it, or there is
one already. An answer that has begun when something fails is cut, so that the client sees that it is incomplete; the
access log has the status that was sent.

Retry-After: *exact*, the moment is known; *estimated*, from how fast the queue drains and how many were refused lately,
60 s at most; *soon*, another process takes over at once.

"""
_WHO: Final = {"C": "client", "S": "edgeq", "U": "upstream", "K": "kernel"}
_WAITS: Final = {"none": "", "exact": "exact", "adaptive": "estimated", "soon": "soon"}


def document() -> str:
    """The table for people, in Markdown: docs/reasons.md."""
    lines = ["| reason | status | Retry-After | whose doing | what | what to look at |", "|---|---|---|---|---|---|"]
    for row in _ROWS:
        status = str(row.status) if row.status else ""
        cells = (f"`{row.token}`", status, _WAITS[row.retry_after], _WHO[row.fault], row.title, row.hint)
        lines.append("| " + " | ".join(cells) + " |")
    return _INTRODUCTION + "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
