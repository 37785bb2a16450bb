"""Who may be connected: the limits of connections per listener and per client, counted machine-wide on the board.

Two workers may admit at the same moment: a limit is passed by workers - 1 at most.

A listener is known by its address: its sockets are bound to it, so it never changes under open connections, while a
reload may rename a listener, or give its name to another one before the last connection of the old one is gone.
All clients of a Unix socket have one name, so the limit per client does not count them. A client is an IPv4 address or
an IPv6 network (`client_key`).
"""

from __future__ import annotations

from edgeq.board.layout import Board, Row, stable_hash
from edgeq.config.schema import Listener
from edgeq.listener.peer import UNIX_HOST, client_key


class BoardGate:
    """Who may be connected, counted machine-wide on the board; this worker writes only its own row."""

    def __init__(self, board: Board, slot: int) -> None:
        self._board: Board = board
        self._row: Row = board.row(slot)
        self._limits: dict[str, tuple[int, int, int]] = {}
        # For each listener the prefix lengths of IPv6 clients, as configured now and before: the newest first.
        self._prefixes: dict[str, list[int]] = {}
        # Open connections that were counted for their client, by listener, host, and the prefix length at that time: a
        # reload may switch that limit on or off meanwhile, or change the length.
        self._counted: dict[tuple[str, str, int], int] = {}

    def configure(self, listener: Listener) -> None:
        """Limits of one listener: 0 means none."""
        index = self._board.listener_index(listener.address)
        self._limits[listener.address] = (index, listener.max_connections, listener.max_connections_per_client)
        prefix = listener.ipv6_client_prefix
        known = self._prefixes.get(listener.address, [])
        self._prefixes[listener.address] = [prefix, *[one for one in known if one != prefix]]

    def try_open(self, listener: str, client_host: str) -> str | None:
        """Count a connection, or say by a reason why not."""
        index, limit, client_limit = self._limits[listener]
        client = 0
        prefix = 0
        if client_limit and client_host != UNIX_HOST:
            prefix = self._prefixes[listener][0]
            client = stable_hash(client_key(client_host, prefix))
            if self._board.client_total(client) >= client_limit:
                return "conn_limit_client"
        if limit and self._board.listener_total(index) >= limit:
            return "conn_limit_listener"
        if client:
            key = (listener, client_host, prefix)
            self._counted[key] = self._counted.get(key, 0) + 1
        self._row.add_connection(index, client)
        return None

    def close(self, listener: str, client_host: str) -> None:
        """A counted connection is gone."""
        client = 0
        if self._counted:
            for prefix in self._prefixes[listener]:
                key = (listener, client_host, prefix)
                counted = self._counted.get(key, 0)
                if counted:
                    client = stable_hash(client_key(client_host, prefix))
                    if counted > 1:
                        self._counted[key] = counted - 1
                    else:
                        del self._counted[key]
                    break
        self._row.remove_connection(self._limits[listener][0], client)
