"""What a live change spares an upstream that a reload does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvloop

from edgeq.config.schema import Dns, UpstreamTls
from edgeq.config.schema import Upstream as UpstreamConfig
from edgeq.upstream import tls_io
from edgeq.upstream.resolve_io import Resolver
from edgeq.upstream.service_io import UpstreamService
from edgeq.upstream.tls_io import Contexts, upstream_context
from edgeq.worker.wheel import Wheel


def test_certificates_are_read_again_by_a_reload_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload reads them even where nothing has changed, a live change only where it is about them; each only once for
    all upstreams that say the same, whatever name they verify."""
    read: list[UpstreamTls] = []

    def context(tls: UpstreamTls) -> Any:
        read.append(tls)
        return upstream_context(tls)

    monkeypatch.setattr(tls_io, "upstream_context", context)
    url = "https://10.0.0.1"

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        log: Any = None
        resolver = Resolver(loop, Dns(), log)
        service = UpstreamService("u", loop, Wheel(0.0, 0.1, 16), resolver, log)
        other = UpstreamService("v", loop, Wheel(0.0, 0.1, 16), resolver, log)
        contexts = Contexts()
        try:
            service.apply(UpstreamConfig(endpoints=(url,)), 1, contexts=contexts)
            service.apply(UpstreamConfig(endpoints=(url,), limit=7), 1, contexts=contexts)
            assert (len(read), service.upstream.bulkhead.limit) == (1, 7)
            named = UpstreamTls(server_name="api.example")
            other.apply(UpstreamConfig(endpoints=(url,), tls=named), 1, contexts=contexts)
            assert len(read) == 1
            contexts.forget()
            service.apply(UpstreamConfig(endpoints=(url,), limit=7), 1, contexts=contexts)
            other.apply(UpstreamConfig(endpoints=(url,), tls=named), 1, contexts=contexts)
            assert len(read) == 2
            open_to_all = UpstreamTls(verify=False)
            service.apply(UpstreamConfig(endpoints=(url,), tls=open_to_all), 1, contexts=contexts)
            assert len(read) == 3
            contexts.keep([named])
            assert contexts.of(named) is not contexts.of(open_to_all)
            assert len(read) == 4
        finally:
            service.close()
            other.close()
            resolver.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
