"""One listener's settings, made ready for the hot path and replaced in place by a reload."""

from __future__ import annotations

from typing import Final

from edgeq.config.schema import Listener
from edgeq.policy.trust import Networks
from edgeq.wire.head import HeadLimits

TRIM_S: Final = 5.0
"""After this much silence a kept connection gives up what it remembers of its last head."""


class ListenerSettings:
    """Limits in bytes, time-outs in seconds; 0 means "none" for those that the configuration can switch off."""

    __slots__ = (
        "body_bytes",
        "body_timeout_s",
        "half_close_s",
        "head_timeout_s",
        "ipv6_client_prefix",
        "keepalive_s",
        "least_answer_bytes",
        "least_body_bytes",
        "least_head_bytes",
        "limits",
        "max_requests",
        "name",
        "resource",
        "trailer_bytes",
        "trim_s",
        "trusted",
        "write_timeout_s",
    )

    def __init__(self, config: Listener) -> None:
        self.update(config)

    def update(self, config: Listener) -> None:
        """Take over a new configuration; connections that are open see it at their next step."""
        self.name: str = config.name or config.address
        self.resource: str = f"listener/{self.name}"
        limits = config.limits
        self.limits: HeadLimits = HeadLimits(
            int(limits.request_line), int(limits.header_bytes), int(limits.header_count)
        )
        self.body_bytes: int = int(limits.body_bytes)
        self.trailer_bytes: int = int(limits.trailer_bytes)
        timeouts = config.timeouts
        self.head_timeout_s: float = float(timeouts.head)
        self.body_timeout_s: float = float(timeouts.body)
        self.write_timeout_s: float = float(timeouts.write)
        # What must come within each time-out; at least one byte of an answer must be taken, however slow it may be.
        self.least_head_bytes: int = int(limits.min_head_rate * self.head_timeout_s)
        self.least_body_bytes: int = int(limits.min_body_rate * self.body_timeout_s)
        self.least_answer_bytes: int = max(1, int(limits.min_answer_rate * self.write_timeout_s))
        self.keepalive_s: float = float(timeouts.keepalive)
        self.trim_s: float = min(TRIM_S, self.keepalive_s) if self.keepalive_s else TRIM_S
        self.half_close_s: float = float(timeouts.half_close)
        self.max_requests: int = config.max_requests
        self.ipv6_client_prefix: int = config.ipv6_client_prefix
        self.trusted: Networks | None = Networks(config.trusted) if config.trusted else None

    def retire(self) -> None:
        """The listener is removed: each of its connections ends, announced, after its next answer."""
        self.max_requests = 1
