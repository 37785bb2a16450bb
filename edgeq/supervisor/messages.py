"""What supervisor, spawner and workers say to each other.

MessagePack with a tag, not pickle: workers may run as another user than the supervisor, and must not be able to make it
execute anything. Only the configuration is pickled, and only travels downwards (its types carry units that MessagePack
does not know).
"""

from __future__ import annotations

import pickle
import secrets
from typing import TypeAlias

import msgspec

from edgeq.config.schema import Config
from edgeq.llm.account import Conversation, Entry, Snapshot, Spent


class Message(msgspec.Struct, frozen=True, tag=True):
    """Base of all."""


class Credentials(msgspec.Struct, frozen=True):
    """Who a worker becomes."""

    uid: int
    gid: int
    groups: tuple[int, ...]


class TicketSecret(msgspec.Struct, frozen=True):
    """From which workers derive the keys of TLS session tickets (tickets_io.py). Never shown, logged or stored."""

    value: bytes

    def __repr__(self) -> str:
        return "TicketSecret(...)"

    @classmethod
    def make(cls) -> TicketSecret:
        """A new one."""
        return cls(secrets.token_bytes(32))


class AccountsTold(Message, frozen=True):
    """Supervisor to worker: who may use models, or what of it has changed, and what was spent."""

    number: int
    """Changes are counted."""
    snapshot: Snapshot | None = None
    spent: Spent | None = None


# supervisor -> spawner


class Spawn(Message, frozen=True):
    """Fork a worker. Descriptors: control socket, board, the file for its word of where it is, the bells by slot, one
    listening socket per address."""

    slot: int
    generation: int
    workers: int
    addresses: tuple[str, ...]
    config: bytes
    tickets: TicketSecret
    credentials: Credentials | None = None
    bells: int = 0
    """How many."""
    kept: frozenset[str] = frozenset()
    """Addresses whose sockets outlive the supervisor."""
    accounts: AccountsTold | None = None
    """With [accounts]: a worker knows them before it accepts. The last descriptor is the file for what it has used when
    it ends without a supervisor."""


# spawner -> supervisor


class SpawnerReady(Message, frozen=True):
    """Everything is imported."""


class Spawned(Message, frozen=True):
    """Descriptor: the worker's pidfd."""

    slot: int
    pid: int


class SpawnFailed(Message, frozen=True):
    """fork failed."""

    slot: int
    error: str


class Exited(Message, frozen=True):
    """A child was reaped; `status` as from os.waitpid."""

    pid: int
    status: int


# supervisor -> worker


class Apply(Message, frozen=True):
    """Run this configuration from now on.

    Descriptors: one listening socket per address that is new to the worker, then the bells that are.
    """

    generation: int
    workers: int
    addresses: tuple[str, ...]
    config: bytes
    kept: frozenset[str] = frozenset()
    """Addresses whose sockets outlive the supervisor."""
    rereads: bool = True
    """Files that it names (certificates) are read again, even where their names have not changed."""


class Retire(Message, frozen=True):
    """Empty this listener's accept queue and stop watching it."""

    address: str


class Empty(Message, frozen=True):
    """Serve what waits for another slot's worker, which is dead or stuck. Descriptor: its socket of this listener."""

    address: str


class Drain(Message, frozen=True):
    """Finish what runs, then exit. Comes after a Retire for each listener."""

    timeout_s: float


class ReopenLogs(Message, frozen=True):
    """The log files were moved away."""


class RenewTickets(Message, frozen=True):
    """Make and take TLS session tickets by this secret from now on, and by no other."""

    tickets: TicketSecret


class ListConnections(Message, frozen=True):
    """Tell of this many client connections."""

    count: int


class UsageTaken(Message, frozen=True):
    """The batch of this number is in the store."""

    number: int


# worker -> supervisor


class Ready(Message, frozen=True):
    """The worker accepts connections."""

    pid: int
    generation: int


class Failed(Message, frozen=True):
    """The worker cannot start and exits."""

    generation: int
    error: str


class Applied(Message, frozen=True):
    """The answer to Apply; with an error the worker runs what it ran before."""

    generation: int
    error: str = ""


class Retired(Message, frozen=True):
    """The answer to Retire."""

    address: str


class Emptied(Message, frozen=True):
    """The answer to Empty."""

    address: str


class Drained(Message, frozen=True):
    """Nothing is open any more; the worker exits."""


class SeenConnection(msgspec.Struct, frozen=True, array_like=True):
    """A client connection as its worker sees it (worker/connections.py says what the fields mean)."""

    client: str
    listener: str
    tls: bool
    state: str
    resource: str
    age_ms: float
    request_ms: float | None
    requests: int
    received_bytes: int | None
    sent_bytes: int | None
    stalled: bool
    route: str
    method: str
    path: str
    endpoint: str
    request_id: str


class ConnectionList(Message, frozen=True):
    """The answer to the ListConnections of the same count."""

    count: int
    connections: tuple[SeenConnection, ...] | None
    """None: it could not look, and its log says why."""


class AccountsTaken(Message, frozen=True):
    """The answer to an AccountsTold with a snapshot."""

    number: int


class UsageTold(Message, frozen=True):
    """A batch of what was used (llm/usage.py)."""

    mark: str
    """Of the worker's life, in which batches are counted."""
    number: int
    entries: tuple[Entry, ...]
    conversations: tuple[Conversation, ...] = ()
    dropped: int = 0
    """What did not fit since the batch before."""


FromSpawner: TypeAlias = SpawnerReady | Spawned | SpawnFailed | Exited
ToWorker: TypeAlias = (
    Apply | Retire | Empty | Drain | ReopenLogs | RenewTickets | ListConnections | AccountsTold | UsageTaken
)
FromWorker: TypeAlias = (
    Ready | Failed | Applied | Retired | Emptied | Drained | ConnectionList | AccountsTaken | UsageTold
)

_encoder = msgspec.msgpack.Encoder()
_spawn = msgspec.msgpack.Decoder(Spawn)
_from_spawner = msgspec.msgpack.Decoder(FromSpawner)
_to_worker = msgspec.msgpack.Decoder(ToWorker)
_from_worker = msgspec.msgpack.Decoder(FromWorker)


def encode_message(message: Message) -> bytes:
    """For any of the above."""
    return _encoder.encode(message)


def decode_spawn(payload: bytes) -> Spawn:
    """In the spawner. Raises msgspec.DecodeError, as the others do."""
    return _spawn.decode(payload)


def decode_from_spawner(payload: bytes) -> FromSpawner:
    """In the supervisor."""
    message: FromSpawner = _from_spawner.decode(payload)
    return message


def decode_to_worker(payload: bytes) -> ToWorker:
    """In a worker."""
    message: ToWorker = _to_worker.decode(payload)
    return message


def decode_from_worker(payload: bytes) -> FromWorker:
    """In the supervisor."""
    message: FromWorker = _from_worker.decode(payload)
    return message


def pack_config(config: Config) -> bytes:
    """In the supervisor."""
    return pickle.dumps(config, protocol=pickle.HIGHEST_PROTOCOL)


def unpack_config(data: bytes) -> Config:
    """In a worker."""
    config = pickle.loads(data)
    if not isinstance(config, Config):
        raise TypeError(f"expected a Config, got {type(config).__name__}")
    return config
