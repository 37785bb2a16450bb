"""The upstreams of one worker: each a service and a retry budget, changed in place, and let go when nobody waits there.

::

    OF THE CONFIGURATION --not in the next one--> RETIRED --nobody waits any more--> gone
             ^                                       |
             +------- in a later one again ----------+
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgeq.board.resources import EndpointCells, Resources
from edgeq.config.schema import Config, Dns
from edgeq.policy.retry import RetryBudget
from edgeq.upstream.resolve_io import Resolver
from edgeq.upstream.service_io import UpstreamService
from edgeq.upstream.shared import SharedBudget
from edgeq.upstream.tls_io import Contexts
from edgeq.upstream.upstream import Upstream
from edgeq.worker.loop_io import WorkerLoop
from edgeq.worker.wheel import Wheel


class Upstreams:
    """All of this worker, by their names."""

    def __init__(self, loop: WorkerLoop, wheel: Wheel, dns: Dns, resources: Resources, log: Any) -> None:
        """`resources`: by which limits, breakers and so on hold for all workers together."""
        self._loop = loop
        self._wheel = wheel
        self._resources = resources
        self._log = log
        self._resolver = Resolver(loop, dns, log)
        self._contexts = Contexts()
        self._services: dict[str, UpstreamService] = {}
        self.budgets: dict[str, RetryBudget] = {}
        """Theirs are the retries of all routes that lead there."""
        self._budget_cells: dict[str, EndpointCells] = {}
        """What they have on the board."""
        self._retired: list[UpstreamService] = []
        """Out of the configuration, with requests that still wait for a connection."""

    def configure_dns(self, dns: Dns) -> None:
        """For lookups from now on."""
        self._resolver.configure(dns)

    def configure(self, config: Config, workers: int, lenient: bool, rereads: bool, same: Collection[str]) -> None:
        """Take over those of a configuration; what is not in it any more stays until `retire`, since routes lead there.

        lenient: certificates that cannot be used are no error; rereads: they are read again; same: upstreams that have
        what they need. Raises: StartError.
        """
        if rereads:
            self._contexts.forget()
        for name, upstream in config.upstream.items():
            service = self._service(name)
            if name not in same:
                service.apply(upstream, workers, lenient, self._contexts)
            service.upstream.bulkhead.queue.tenant_share = config.tenant.queue_share
        self._contexts.keep(one.tls for one in config.upstream.values())
        for name, upstream in config.upstream.items():
            budget = self._budget(name)
            budget.share = float(upstream.retry_budget.share)
            budget.reserve = float(upstream.retry_budget.reserve)
            budget.concurrent = float(upstream.retry_budget.concurrent)
            budget.concurrent_min = -(-upstream.retry_budget.concurrent_min // workers)
        for name in [name for name in self.budgets if name not in config.upstream]:
            del self.budgets[name]
            self._resources.forget_endpoint(self._budget_cells.pop(name))

    def _service(self, name: str) -> UpstreamService:
        """An upstream's; also one that has left the configuration and comes back while requests of it still run, since
        its cells of the board are in use."""
        service = self._services.get(name)
        if service is not None:
            return service
        shared = self._resources.bind(f"upstream/{name}")
        for service in self._retired:
            if service.upstream.shared is shared:
                self._retired.remove(service)
                break
        else:
            service = UpstreamService(name, self._loop, self._wheel, self._resolver, self._log, self._resources)
        self._services[name] = service
        return service

    def _budget(self, name: str) -> RetryBudget:
        """An upstream's, of which a part may be used up by the other workers."""
        budget = self.budgets.get(name)
        if budget is None:
            cells = self._resources.bind_endpoint(f"upstream/{name}:retries")
            budget = self.budgets[name] = RetryBudget(0.0, 0.0, SharedBudget(cells))
            self._budget_cells[name] = cells
        return budget

    def retire(self, config: Config) -> None:
        """No route leads any more to those that are not in this configuration."""
        for name in [name for name in self._services if name not in config.upstream]:
            service = self._services.pop(name)
            service.retire()
            self._retired.append(service)

    def find(self, name: str) -> Upstream:
        """One of the configuration."""
        return self._services[name].upstream

    def listed(self) -> list[Upstream]:
        """All of the configuration."""
        return [service.upstream for service in self._services.values()]

    def open_connections(self) -> int:
        """To all of them."""
        return sum(service.open_connections() for service in self._services.values())

    def tick(self, now: float) -> None:
        """About ten times a second."""
        for service in self._services.values():
            service.tick(now)
        for budget in self.budgets.values():
            budget.tick(now)
        if self._retired:
            for service in self._retired:
                service.tick(now)
            self._forget()

    def _forget(self) -> None:
        """Let go of those that have left the configuration, once nobody waits there."""
        for service in [service for service in self._retired if service.is_settled()]:
            self._retired.remove(service)
            upstream = service.upstream
            upstream.leave()
            self._resources.forget(upstream.shared)

    def look(self, now: float) -> None:
        """Another worker has left a place to one who waits here, or has moved a learned limit."""
        for service in (*self._services.values(), *self._retired):
            service.upstream.look(now)

    def close(self) -> None:
        """Let go of everything."""
        for service in (*self._services.values(), *self._retired):
            service.close()
        self._resolver.close()
