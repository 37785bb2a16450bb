"""Every refusal and failure that edgeq can name: one closed table, used by answers, logs, metrics and documentation.

A refused request carries exactly one `reason` (a token of this table) and a `resource` (what it was refused by, for
example ``upstream/pay:pool`` or ``listener/:8080:request_line``). Whose doing it is:

    C  the client's own request or quota      S  shed by this gateway
    U  the upstream                           K  the kernel: no answer is possible

Sources: RFC 9110 15 (status), RFC 9209 (Proxy-Status errors), RFC 9457 (problem types).
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Fault = Literal["C", "S", "U", "K"]


class Reason(NamedTuple):
    """One row: how a reason looks from outside.

    `status` 0 means that no answer is sent (only the log shows it). `retry` says that Retry-After makes sense.
    `hint` is what an operator is told.
    """

    token: str
    fault: Fault
    status: int
    retry: bool
    proxy_status: str
    title: str
    hint: str


_ROWS: Final = (
    # the client's message
    Reason(
        "request_malformed", "C", 400, False, "http_request_error", "Malformed request", "the request breaks RFC 9112"
    ),
    Reason(
        "request_ambiguous",
        "C",
        400,
        False,
        "http_request_error",
        "Ambiguous request",
        "two readings of one message (possible request smuggling) or of one path (a way past a route)",
    ),
    Reason(
        "host_invalid",
        "C",
        400,
        False,
        "http_request_error",
        "Missing or invalid Host",
        "exactly one valid Host is required",
    ),
    Reason(
        "request_line_too_long", "C", 414, False, "http_request_error", "Request line too long", "limits.request_line"
    ),
    Reason(
        "header_bytes_exceeded",
        "C",
        431,
        False,
        "http_request_error",
        "Header section too large",
        "limits.header_bytes",
    ),
    Reason(
        "header_count_exceeded", "C", 431, False, "http_request_error", "Too many header fields", "limits.header_count"
    ),
    Reason(
        "trailer_bytes_exceeded",
        "C",
        431,
        False,
        "http_request_error",
        "Trailer section too large",
        "limits.trailer_bytes",
    ),
    Reason(
        "body_too_large",
        "C",
        413,
        False,
        "http_request_error",
        "Content too large",
        "limits.body_bytes or the route's body_bytes",
    ),
    Reason("method_refused", "C", 405, False, "http_request_denied", "Method not allowed", "CONNECT is not served"),
    Reason(
        "expectation_unknown", "C", 417, False, "http_request_error", "Expectation failed", "only 100-continue is known"
    ),
    Reason(
        "transfer_coding_unknown",
        "C",
        501,
        False,
        "http_request_error",
        "Transfer coding not implemented",
        "only chunked is known",
    ),
    Reason(
        "version_unsupported",
        "C",
        505,
        False,
        "http_request_error",
        "HTTP version not supported",
        "only HTTP/1.0 and HTTP/1.1 are served",
    ),
    Reason("head_timeout", "C", 408, False, "http_request_error", "Request head took too long", "timeouts.head"),
    Reason("body_timeout", "C", 408, False, "http_request_error", "Request body took too long", "timeouts.body"),
    Reason("client_gone", "C", 0, False, "", "Client left", "left before its answer was complete (499 in the log)"),
    Reason("client_stalled", "C", 0, False, "", "Client stopped reading", "timeouts.write"),
    Reason("handshake_failed", "C", 0, False, "", "TLS handshake failed", "protocol version, name or certificate"),
    Reason(
        "proxy_header_invalid",
        "C",
        0,
        False,
        "",
        "PROXY header missing or invalid",
        "proxy_protocol_from lists a peer that sends none",
    ),
    # listener
    Reason(
        "conn_limit_listener",
        "S",
        503,
        True,
        "proxy_internal_response",
        "Too many connections",
        "raise max_connections or shorten keepalive",
    ),
    Reason(
        "conn_limit_client",
        "C",
        429,
        True,
        "proxy_internal_response",
        "Too many connections from this address",
        "max_connections_per_client",
    ),
    Reason("fd_exhausted", "S", 503, True, "proxy_internal_error", "Out of file descriptors", "raise LimitNOFILE"),
    Reason("draining", "S", 503, True, "proxy_internal_response", "Stopping", "a reload or stop is in progress"),
    # route and configuration
    Reason("no_route", "S", 404, False, "destination_not_found", "No route", "no [[route]] matches host and path"),
    Reason("config_error", "S", 500, False, "proxy_configuration_error", "Configuration error", "see the event log"),
    Reason(
        "internal_error",
        "S",
        500,
        False,
        "proxy_internal_error",
        "Internal error",
        "a defect of this gateway: see the event log",
    ),
    # waiting
    Reason(
        "queue_full",
        "S",
        503,
        True,
        "connection_limit_reached",
        "Queue full",
        "more requests wait than the queue may hold",
    ),
    Reason(
        "queue_timeout",
        "S",
        503,
        True,
        "connection_limit_reached",
        "Waited too long in a queue",
        "no connection became free in time",
    ),
    Reason(
        "deadline_expired",
        "S",
        504,
        False,
        "http_response_timeout",
        "Deadline expired",
        "the route's timeout for the whole request",
    ),
    # upstream
    Reason(
        "upstream_none_healthy",
        "U",
        503,
        True,
        "destination_unavailable",
        "No endpoint available",
        "no address of the upstream is known or alive",
    ),
    Reason(
        "upstream_connect_refused",
        "U",
        502,
        False,
        "connection_refused",
        "Upstream refused the connection",
        "nothing listens there",
    ),
    Reason(
        "upstream_connect_timeout",
        "U",
        504,
        False,
        "connection_timeout",
        "Upstream did not accept in time",
        "network, firewall or a full backlog",
    ),
    Reason(
        "upstream_connect_failed",
        "U",
        502,
        False,
        "destination_ip_unroutable",
        "Upstream cannot be reached",
        "routing or address",
    ),
    Reason(
        "upstream_backlog_full",
        "U",
        504,
        True,
        "connection_timeout",
        "Upstream's accept queue is full",
        "its listen backlog overflows",
    ),
    Reason(
        "upstream_port_exhausted",
        "S",
        503,
        True,
        "proxy_internal_error",
        "No local port left",
        "enable keep-alive or add source addresses",
    ),
    Reason(
        "upstream_tls_failed",
        "U",
        502,
        False,
        "tls_certificate_error",
        "TLS with the upstream failed",
        "certificate, name or protocol version",
    ),
    Reason(
        "upstream_timeout",
        "U",
        504,
        False,
        "http_response_timeout",
        "Upstream did not answer in time",
        "timeouts.first_byte or timeouts.body",
    ),
    Reason(
        "upstream_reset",
        "U",
        502,
        False,
        "connection_terminated",
        "Upstream closed the connection",
        "before or within its answer",
    ),
    Reason(
        "upstream_truncated",
        "U",
        502,
        False,
        "http_response_incomplete",
        "Upstream's answer was cut",
        "it closed within the body",
    ),
    Reason(
        "upstream_protocol_error",
        "U",
        502,
        False,
        "http_protocol_error",
        "Upstream's answer is not valid HTTP",
        "see details in the log",
    ),
    Reason("dns_error", "U", 502, False, "dns_error", "Upstream's name does not resolve", "check the name and [dns]"),
    Reason("dns_timeout", "U", 504, False, "dns_timeout", "Name lookup timed out", "check [dns] nameservers"),
)

REASONS: Final[dict[str, Reason]] = {row.token: row for row in _ROWS}
