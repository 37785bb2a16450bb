"""What `edgeq.toml` may say: one frozen struct for each table, each key with a safe default.

Units: a `Duration` is seconds (written "250ms", "30s", "5m", "1h" or a number of seconds), a `Size` is bytes (written
"64KiB", "1MiB", "1GiB", "10kB" or a number of bytes). Zero means "no limit" where a key says so.
Paths of certificates and keys may be "credential:NAME", a file that systemd hands to the service (credentials_io.py);
else they are kept as written. `load.py` checks that they can be read.
"""

from __future__ import annotations

from typing import Literal

from edgeq.config.base import Duration, Size, Table
from edgeq.config.schema_llm import Accounts, Model, Prompt, ProviderKey, RouteLlm, TokenLimits


class Stuck(Table, frozen=True):
    """[server.stuck]: a worker whose event loop stands still while another worker's turns. A process that a debugger
    holds is never killed for it."""

    after: Duration = Duration(2)
    """Then new connections, and those that wait for it in the kernel, go to the others. 0: never; nor is it killed."""
    restart: Duration = Duration(10)
    """Then it is killed and replaced; what it had in hand is lost. 0: never."""


class Server(Table, frozen=True):
    """[server]: the processes."""

    workers: int = 0
    """Worker processes; 0 means one per usable core."""
    admin: str = ""
    """Path of the admin socket; empty means none."""
    admin_mode: str = "0660"
    """Of that socket, in octal."""
    admin_group: str = ""
    """Its group, whose members may read; empty: the group that edgeq runs as."""
    changes: str = ""
    """File for what `edgeq set --persist` changes; empty: changes.toml in FILE.d beside the configuration FILE."""
    metrics: str = ""
    """"127.0.0.1:9100": serve /metrics there as well; empty: only on the admin socket."""
    drain_timeout: Duration = Duration(30)
    """How long a stopping worker, or a listener that a reload has removed, may finish what runs."""
    drain_idle: Duration = Duration(1)
    """While draining, how long a kept connection must have been silent before it is closed."""
    history: Duration = Duration(300)
    """What all queues and workers were, ten times a second, for so long: 1 s to 1 h; 0: not kept. A resource or worker
    takes 120 KiB for 5 minutes."""
    dumps: str = ""
    """Directory into which the history is written when a storm of refusals begins; empty: nowhere."""
    user: str = ""
    """Drop to this user after the sockets are bound (only when started as root)."""
    stuck: Stuck = Stuck()


class Certificate(Table, frozen=True):
    """One certificate of a TLS listener; the names it serves come from the certificate itself."""

    certificate: str
    key: str = ""
    """Private key file; empty means the key is in the certificate file."""


class ListenerTls(Table, frozen=True):
    """[listener.tls]: the first certificate also answers clients that send no server name."""

    certificates: tuple[Certificate, ...]
    min_version: Literal["1.2", "1.3"] = "1.2"
    client_ca: str = ""
    """Ask for client certificates signed by this CA, and refuse clients without one."""


class ListenerTimeouts(Table, frozen=True):
    """[listener.timeouts]: how long a client may take. 0 switches one off, except head and half_close."""

    proxy_header: Duration = Duration(5)
    handshake: Duration = Duration(10)
    """TLS handshake."""
    head: Duration = Duration(10)
    """From the first byte of a request head (or from accept) to its end, or the window of `limits.min_head_rate`."""
    body: Duration = Duration(30)
    """Between two reads of a request body; also the window of `limits.min_body_rate`."""
    write: Duration = Duration(60)
    """Between two moments of progress while a client reads its answer; also the window of `limits.min_answer_rate`."""
    keepalive: Duration = Duration(75)
    """Between an answer and the next request."""
    half_close: Duration = Duration(1)
    """After a client's FIN, how long its answer may still take to begin before the request is cancelled; 0: none."""


class ListenerLimits(Table, frozen=True):
    """[listener.limits]: what a client may send, and how slowly.

    A rate is bytes a second over a whole time-out (`timeouts.head`, `body`, `write`), and is not looked at where that
    is 0; only the time counts in which the client could send, or had something to take. 240: IIS (minBytesPerSecond)
    and Kestrel, for bodies and answers; Apache's mod_reqtimeout asks for 500.
    """

    request_line: Size = Size(8 * 1024)
    header_bytes: Size = Size(32 * 1024)
    """All field lines of one head together."""
    header_count: int = 100
    body_bytes: Size = Size(1024**3)
    """0: no limit."""
    trailer_bytes: Size = Size(8 * 1024)
    min_head_rate: Size = Size(0)
    """A head that comes this fast may take longer than `timeouts.head`. 0: none may, which is the strictest."""
    min_body_rate: Size = Size(240)
    """0: any."""
    min_answer_rate: Size = Size(240)
    """Of an answer that waits for its client. 0: any, as long as there is progress."""


class AcceptQueue(Table, frozen=True):
    """[listener.queue]: accepted connections that wait because `max_connections` is reached."""

    max: int = 1024
    """Per worker."""
    timeout: Duration = Duration(1)


class Listener(Table, frozen=True):
    """[[listener]]: one bound address."""

    address: str
    """"0.0.0.0:8080", "[::]:8080" or "unix:/run/edgeq/http.sock"."""
    name: str = ""
    """Empty: the address."""
    backlog: int = 4096
    """For listen(2): the kernel's accept queue, per worker."""
    max_connections: int = 20_000
    """Open connections, machine-wide. 0: no limit."""
    max_connections_per_client: int = 0
    """Open connections of one client, machine-wide. 0: no limit."""
    ipv6_client_prefix: int = 64
    """So many equal bits make two IPv6 addresses one client; an IPv4 address, mapped or not, is a client of its own."""
    max_requests: int = 0
    """Requests on one connection before it is closed. 0: no limit."""
    accept_budget: int = 64
    """Connections accepted in one turn of the loop."""
    accept_budget_lagging: int = 8
    """The same while the loop lags."""
    proxy_protocol: bool = False
    """Expect a PROXY header (v1 or v2) on each connection from `proxy_protocol_from`."""
    proxy_protocol_from: tuple[str, ...] = ()
    """Addresses (CIDR) that must send the PROXY header; others are plain clients."""
    trusted: tuple[str, ...] = ()
    """Addresses (CIDR) whose X-Forwarded-*, Forwarded are believed."""
    send_buffer: Size = Size(128 * 1024)
    """Unsent bytes that the kernel holds per client (TCP_NOTSENT_LOWAT)."""
    receive_buffer: Size = Size(1024 * 1024)
    """Bytes of a request that wait in the kernel, per client, while the upstream is slow."""
    tls: ListenerTls | None = None
    timeouts: ListenerTimeouts = ListenerTimeouts()
    limits: ListenerLimits = ListenerLimits()
    queue: AcceptQueue = AcceptQueue()


class UpstreamTimeouts(Table, frozen=True):
    """[upstream.NAME.timeouts]: how long an upstream may take. 0 switches one off, except connect."""

    connect: Duration = Duration(2)
    """TCP and TLS together."""
    first_byte: Duration = Duration(60)
    """From the end of the request to the first byte of the answer."""
    body: Duration = Duration(60)
    """Between two reads of an answer's body."""
    tunnel: Duration = Duration(3600)
    """Silence in both directions of an upgraded connection."""


class UpstreamPool(Table, frozen=True):
    """[upstream.NAME.pool]: connections to each endpoint, machine-wide; a worker takes its share, rounded up."""

    max_connections: int = 1024
    max_idle: int = 256
    max_connecting: int = 64
    """Connections being opened at once."""
    idle_timeout: Duration = Duration(55)
    """Shorter than the upstream's own keep-alive time-out."""
    max_lifetime: Duration = Duration(3600)
    """0: no limit."""
    queue: int = 1024
    """Requests that wait for a connection, per endpoint; more are refused with queue_full."""
    queue_timeout: Duration = Duration(1)


class UpstreamRetryBudget(Table, frozen=True):
    """[upstream.NAME.retry_budget]: retries (and hedges) of all routes, machine-wide."""

    share: float = 0.2
    """Of the requests of the last ten seconds."""
    reserve: float = 3.0
    """Retries a second beyond that."""
    concurrent: float = 0.2
    """Of the requests in flight at a worker, so many may be retries."""
    concurrent_min: int = 3
    """So many may be at once, however few there are in flight; a worker takes its share, rounded up."""


class Queue(Table, frozen=True):
    """Requests that wait because a limit is reached: of an upstream, or of a route."""

    max: int = 256
    """Requests, machine-wide; more are refused, or displace less important ones of the same worker. A worker has its
    share of this number in any case, even if the others' waiters use all of it."""
    max_bytes: Size = Size(16 * 1024 * 1024)
    """Memory that they hold, machine-wide in the same way."""
    timeout: Duration = Duration(0)
    """The longest wait. 0: twice the median of the answers' times, 1 s at least and 30 s at most."""
    discipline: Literal["adaptive", "fifo", "lifo"] = "adaptive"
    """adaptive: the oldest first until the queue has not been empty for a while, then the newest."""


class UpstreamTls(Table, frozen=True):
    """[upstream.NAME.tls]: for https endpoints."""

    ca: str = ""
    """File of trusted CAs; empty: the system's."""
    verify: bool = True
    server_name: str = ""
    """SNI and the name that is verified; empty: the endpoint's host."""
    certificate: str = ""
    """Client certificate."""
    key: str = ""


class Endpoint(Table, frozen=True):
    """An element of [upstream.NAME] endpoints that says more than its URL."""

    url: str
    weight: int = 1
    """Share of the traffic, compared with the others'. All addresses of a name have it. 0: it is drained, and takes
    only clients that stick to it."""
    enabled: bool = True
    """false: as if it were not there; what runs is finished."""


class Health(Table, frozen=True):
    """[upstream.NAME.health]: active checks of each endpoint, by one worker for all."""

    path: str = "/"
    host: str = ""
    """Host header; empty: the endpoint's own."""
    status: tuple[int, ...] = ()
    """Good statuses; empty: 200 to 399."""
    body: str = ""
    """Text that the first 64 KiB of a good answer contain."""
    interval: Duration = Duration(5)
    timeout: Duration = Duration(2)
    """From the connection's beginning to the end of the answer."""
    healthy: int = 2
    """Good checks in a row until an endpoint is used again."""
    unhealthy: int = 3
    """Bad checks in a row until an endpoint is left out; the very first check decides alone."""


class Eject(Table, frozen=True):
    """[upstream.NAME.eject]: endpoints whose answers are bad are left out for a while. Statuses of 500 and more (but
    not 501 and 505), resets, time-outs and refused connections are failures; 429, and 503 with Retry-After, are not."""

    failures: int = 5
    """In a row. 0: do not count."""
    time: Duration = Duration(30)
    """Of the first ejection; the n-th in a row lasts n times as long."""
    max_time: Duration = Duration(300)
    max_share: float = 0.3
    """Of the endpoints; but one may always be ejected, if there are others."""
    interval: Duration = Duration(10)
    """Between two comparisons of success rates."""
    deviations: float = 1.9
    """An endpoint is ejected if its success rate is so many standard deviations below the mean. 0: do not compare."""
    min_endpoints: int = 5
    """Compare only if so many endpoints had `min_requests` in an interval."""
    min_requests: int = 100


class Breaker(Table, frozen=True):
    """[upstream.NAME.breaker]: refuse at once (circuit_open) while most answers of the whole upstream are failures."""

    failures: float = 0.5
    """Share of failures in the window."""
    min_requests: int = 20
    """In the window."""
    window: Duration = Duration(10)
    open: Duration = Duration(5)
    """How long it stays open at first; twice as long after each failed probe, 10 times at most."""
    probes: int = 3
    """So many good answers close it again."""


class Upstream(Table, frozen=True):
    """[upstream.NAME]: a named service."""

    endpoints: tuple[str | Endpoint, ...]
    """"http://HOST:PORT", "https://HOST:PORT", "unix:/PATH", "http+srv://NAME", "https+srv://NAME", or
    { url = "...", weight = 2 }."""
    balance: Literal["p2c-ewma", "least-requests", "round-robin", "consistent-hash", "sticky"] = "p2c-ewma"
    hash_key: str = "client-address"
    """For consistent-hash: "client-address", "path" (without the query), "header:NAME" or "cookie:NAME". A header that
    comes twice is none, as for `tenant.key`."""
    sticky_cookie: str = "edgeq"
    """For sticky: the cookie that names a client's endpoint."""
    slow_start: Duration = Duration(0)
    """How long an endpoint that is new, or back, takes from a tenth of its weight to all of it. 0: no slow start."""
    panic_threshold: float = 0.5
    """If fewer endpoints than this share are in use (not ejected, checks not bad), all of them are. 0: never."""
    engine: Literal["", "vllm"] = ""
    """vllm: each endpoint is asked for /metrics once a second, and what it says of its queue counts in p2c-ewma and
    least-requests."""
    health: Health | None = None
    eject: Eject = Eject()
    breaker: Breaker | None = None
    limit: Literal["adaptive", "aimd", "gradient2", "observe"] | int = "adaptive"
    """Requests in flight, machine-wide: learned, or a number; 0: no limit. observe: none, but what would be learned is
    shown."""
    queue: Queue = Queue()
    host: str = "preserve"
    """Host header to the upstream: "preserve" (the client's), "upstream" (the endpoint's), or a literal name."""
    receive_buffer: Size = Size(1024 * 1024)
    """Bytes of an answer that wait in the kernel, per connection, while its client is slow. Answers larger than this
    cost more: a sender that waits for room is woken by our acknowledgements, on our processor time."""
    timeouts: UpstreamTimeouts = UpstreamTimeouts()
    pool: UpstreamPool = UpstreamPool()
    retry_budget: UpstreamRetryBudget = UpstreamRetryBudget()
    tls: UpstreamTls = UpstreamTls()

    def weights(self) -> dict[str, int]:
        """The URLs of the endpoints that are enabled, in order, each with its weight."""
        return {
            one.url if isinstance(one, Endpoint) else one: one.weight if isinstance(one, Endpoint) else 1
            for one in self.endpoints
            if not isinstance(one, Endpoint) or one.enabled
        }


class Provider(Table, frozen=True):
    """[provider.NAME]: who answers for models. Each of its keys is an upstream: NAME, or NAME-KEY if there are
    several."""

    url: str
    """With the path that its API has before "/chat/completions", "/messages" or "/models": "https://api.openai.com/v1",
    "https://api.anthropic.com/v1", "https://generativelanguage.googleapis.com/v1beta"."""
    dialect: Literal["openai", "anthropic", "gemini"] = "openai"
    """openai: whatever speaks it (Azure, vLLM, Ollama, llama.cpp, Groq, Mistral)."""
    keys: tuple[str | ProviderKey, ...] = ()
    """Empty: none is sent. How, the dialect says; Azure's go in api-key if its url is that of a deployment."""
    headers: dict[str, str] = {}
    """Sent with each request ("anthropic-beta", "openai-organization", "api-key"); secrets as in keys."""
    limits: TokenLimits = TokenLimits()
    """Of each model at each key, as the provider grants them: they are kept to before it says 429."""
    wait: Duration = Duration(30)
    """The longest wait of a request for tokens of its model and key, in their queue."""
    enabled: bool = True
    """false: nobody new is sent there; what waits or runs there goes on."""
    disabled: dict[str, bool] = {}
    """The same of one of its keys, as `edgeq show upstreams` calls it ("openai-2"), or of a model there, as `edgeq show
    targets` does ("openai/gpt-4o"): which of them are out."""
    engine: Literal["", "vllm"] = ""
    """vllm: balance url and `endpoints` by what each says of its queue in /metrics."""
    endpoints: tuple[str, ...] = ()
    """More of the same kind, as in url without its path: replicas of an engine of one's own."""
    limit: Literal["adaptive", "aimd", "gradient2", "observe"] | int = 1000
    """Requests in flight, machine-wide, as in [upstream.NAME], as are those that follow. A number, because answers of
    models last as long as they are: it takes minutes to learn a limit from them, and providers say by their own limits
    when it is enough. For an engine of one's own "adaptive" is worth a trial."""
    queue: Queue = Queue()
    timeouts: UpstreamTimeouts = UpstreamTimeouts(first_byte=Duration(600), body=Duration(600))
    pool: UpstreamPool = UpstreamPool(max_connections=4096, queue=4096, queue_timeout=Duration(30))
    breaker: Breaker | None = Breaker()
    """Of a key: it learns of connections that cannot be had, or are reset, and not of what one model answers."""
    rest_after: int = 3
    """After so many failures in a row (an answer of 500 or more, none in time, no connection) a model at a key is not
    asked for 5 s, then one request finds out how it is: if that fails, it rests for twice as long, 60 s at most. One
    that has answered within the last second rests after ten. 0: never."""
    retry_budget: UpstreamRetryBudget = UpstreamRetryBudget()
    tls: UpstreamTls = UpstreamTls()


class Match(Table, frozen=True):
    """[route.match]: host and path."""

    host: str = "*"
    """"shop.example", "*.example" or "*"."""
    path: str = "/*"
    """"/exact", "/prefix/*", or a pattern in which a "*" segment stands for one segment ("/users/*/posts/*")."""


class RouteRetry(Table, frozen=True):
    """[route.retry]: what is tried again of requests that have reached an upstream. Only idempotent methods are, as
    long as no answer has begun; another endpoint is asked first. Failures to connect need no policy."""

    on: tuple[Literal["reset", "timeout", "429", "500", "502", "503", "504"], ...] = ()
    """Failures, and statuses of answers; empty: nothing."""
    attempts: int = 2
    """Tries of one request, the first included."""
    per_try_timeout: Duration = Duration(0)
    """Until the answer to a try must begin; 0: the upstream's first_byte."""
    backoff: Duration = Duration(0.025)
    """The longest pause before the second try, drawn at random from 0; twice that before the next one. 0: none."""
    max_backoff: Duration = Duration(0.25)
    hedge: str = "off"
    """When a second try begins beside the first, at another endpoint: after a time ("150ms"), or at the 95th percentile
    of what the route's answers take ("p95")."""
    body: Size = Size(64 * 1024)
    """Requests of whose body more than this has been sent are not tried again, nor hedged. Up to so much of one that is
    still on its way is kept for it."""


class RouteCache(Table, frozen=True):
    """[route.cache]: answers that may be used again (RFC 9111), in the memory of each worker. `cache = {}` switches it
    on with these defaults."""

    max_bytes: Size = Size(64 * 1024 * 1024)
    """Memory of all that is stored, per worker."""
    max_object: Size = Size(1024 * 1024)
    """Answers with a longer body are only passed on."""
    default_ttl: Duration = Duration(0)
    """How long an answer may be used that does not say so itself, and whose request had no cookie. 0: not at all."""
    stale_while_revalidate: Duration = Duration(0)
    """How long after its time an answer is used while it is asked for again; unless it says so itself (RFC 5861)."""
    stale_if_error: Duration = Duration(0)
    """How long after its time an answer may replace a failure or a refusal; unless it says so itself (RFC 5861)."""
    join: Duration = Duration(5)
    """How long a request waits for the answer to an identical one that is on its way; 0: it does not."""
    set_cookie: Literal["refuse", "strip"] = "refuse"
    """Answers that set a cookie: do not store them, or store them without it."""
    obey_requests: bool = True
    """Whether a request's own Cache-Control (no-cache, no-store, max-age, min-fresh) counts."""


class PreparedAnswer(Table, frozen=True):
    """[route.fallback.answer]: an answer from this file."""

    status: int = 503
    content_type: str = "text/plain; charset=utf-8"
    body: str = ""


class RouteFallback(Table, frozen=True):
    """[route.fallback]: what is served in place of a refusal or a failure: the other upstream's answer if the request
    may be sent there, else the prepared one. What a cache has for that (stale_if_error) goes before both."""

    on: tuple[str, ...] = ("shed", "failed")
    """Groups ("shed": no room here; "failed": the upstream does not answer), reasons ("queue_full"), or statuses of the
    upstream's own answers ("429", "500", "502", "503", "504")."""
    upstream: str = ""
    """Name of another upstream, which has limits of its own; empty: none."""
    answer: PreparedAnswer | None = None


class Route(Table, frozen=True):
    """[[route]]: the most specific match wins, then the order in the file."""

    name: str
    upstream: str = ""
    """Required, but for a route with [route.llm]."""
    match: Match = Match()
    rewrite: str = ""
    """Replaces the part of the path before the final "*" (the whole path of an exact match); empty: no rewriting."""
    timeout: Duration = Duration(0)
    """Whole request, all attempts. 0: no limit."""
    body_bytes: Size = Size(-1)
    """Overrides the listener's limit; -1: does not."""
    limit: int = 0
    """Requests in flight, machine-wide. 0: no limit."""
    paused: bool = False
    """Nobody is sent to the upstream: requests wait in the queue, for `queue.timeout` (30 s if that is 0) at most."""
    queue: Queue = Queue()
    priority: Literal["critical", "default", "sheddable"] = "default"
    """What is served first when not all can be."""
    cost: int = 1
    """What one request counts in the rates."""
    retry: RouteRetry = RouteRetry()
    cache: RouteCache | None = None
    fallback: RouteFallback | None = None
    llm: RouteLlm | None = None
    ambiguous_paths: Literal["reject", "pass"] = "reject"
    """Paths that some servers would read as another route's ("/a/..;/b", "/a/..%2fb"); pass: not the upstream here."""


class TenantQueue(Table, frozen=True):
    """[tenant.queue]: requests of one tenant that wait because he has reached his limit, machine-wide."""

    max: int = 16
    """Of all workers; each has its share of this number in any case, so a few more may wait."""
    timeout: Duration = Duration(1)
    """The longest wait. 0: as in [upstream.NAME.queue]."""


class Tenant(Table, frozen=True):
    """[tenant]: who is asking, for rates, limits and fair shares."""

    key: str = ""
    """"header:NAME", "key" (the credential in Authorization, X-Api-Key, Api-Key or X-Goog-Api-Key), "client-address" or
    "route"; empty: all requests are one tenant's."""
    weights: dict[str, int] = {}
    """Shares of a queue by tenant, as `key` finds it (a credential is written as it is sent); others weigh 1."""
    limit: int = 0
    """Requests in flight of each tenant, machine-wide; who has more, and more than wait in his queue, gets 429. All who
    do not say who they are count as one. 0: no limit."""
    queue: TenantQueue = TenantQueue()
    queue_share: float = 1.0
    """Part of the queue of an upstream or route that one tenant may fill in each class; who would fill more gets 429.
    Each worker counts its own part of it. 1: all of it."""


class Rate(Table, frozen=True):
    """[[rate]]: how often somebody may ask, machine-wide."""

    name: str
    by: Literal["client", "tenant", "route", "upstream"]
    """Who is counted for himself (all clients of a Unix socket are one). Whoever passes his own rate gets 429; the rate
    of a route or an upstream is shared by all, and answers 503."""
    limits: tuple[str, ...]
    """"COUNT/WINDOW" or "COUNT/WINDOW burst N": "100/s", "10/15m burst 2". All of them hold. Burst is what may come at
    once, COUNT unless it is said."""
    routes: tuple[str, ...] = ()
    """Names of the routes for which it holds; empty: for all."""
    enforce: bool = True
    """false: only count what it would refuse (`edgeq show rates`)."""
    headers: Literal["ratelimit", "x-ratelimit", "both", "off"] = "ratelimit"
    """Tell clients what is left: RateLimit and RateLimit-Policy of the IETF's draft, or the older X-RateLimit-*."""


class Forward(Table, frozen=True):
    """[forward]: what edgeq adds to forwarded messages."""

    client: Literal["x-forwarded", "forwarded", "off"] = "x-forwarded"
    via: bool = True
    node: str = ""
    """Pseudonym of this gateway in Via and Proxy-Status; empty: the host name."""
    tell_resource: bool = True
    """Tell clients what has refused, by its name (of an upstream's endpoint with its address), and which target has
    answered (x-edgeq-target). false: the reason only; the access log and `explain` have all."""
    trace: Literal["begin", "pass", "off"] = "begin"
    """traceparent: begin one if there is none, only pass it on, or remove it. With [trace] spans of edgeq's own stand
    between the client's and the upstream's, so it is "begin", or "off": upstreams see nothing of it."""
    deadline: str = ""
    """Header that tells how much time is left ("grpc-timeout", "x-envoy-expected-rq-timeout-ms", or in seconds): read
    from trusted peers, written for upstreams. Empty: none."""
    priority: str = ""
    """Header by which trusted peers choose a request's class: critical, default or sheddable. Empty: none."""


class AccessLog(Table, frozen=True):
    """[access_log]: one line for each request. Only these are written to stdout, in this format also on a terminal."""

    target: str = "stdout"
    """"stdout", "off" or a file's path (opened again on SIGUSR1)."""
    format: Literal["json", "combined"] = "json"


class EventLog(Table, frozen=True):
    """[log]: events of edgeq itself, to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"
    """auto: console on a terminal, JSON elsewhere. Colours are for terminals only, and not with NO_COLOR."""


class Trace(Table, frozen=True):
    """[trace]: spans for OpenTelemetry, of requests that are sampled. Without this table there are none, and nothing of
    it is imported. Needs the extra "otel"."""

    endpoint: str = "http://127.0.0.1:4318"
    """Of a collector: OTLP over HTTP, at /v1/traces below it."""
    ratio: float = 0.01
    """Of the traces that begin here, the share that is sampled. A trace that comes from a trusted peer
    (`listener.trusted`) is sampled if that peer says so."""
    service: str = "edgeq"
    """service.name."""
    headers: dict[str, str] = {}
    """Sent to the collector. A secret is written "credential:NAME" (a file that systemd hands to the service) or
    "env:NAME"; what is written here itself is masked wherever the configuration is shown."""
    queue: int = 2048
    """Spans of a worker that may wait for the collector; more are dropped, and counted."""


class Dns(Table, frozen=True):
    """[dns]: how names of endpoints are resolved."""

    nameservers: tuple[str, ...] = ()
    """"ADDRESS" or "ADDRESS:PORT"; empty: the system's."""
    timeout: Duration = Duration(2)
    min_ttl: Duration = Duration(1)
    max_ttl: Duration = Duration(300)
    retry: Duration = Duration(5)
    """After a failed lookup; the last good addresses are kept."""


class Protect(Table, frozen=True):
    """[protect]: when a worker that is too busy refuses requests, before it routes them. 0 switches one off."""

    loop_lag: Duration = Duration(0.25)
    """The event loop's lag, as long as it stands."""
    memory: float = 0.95
    """Share of the control group's memory limit (or the machine's memory); each worker has its part, and what the whole
    group uses counts for all."""
    descriptors: float = 0.95
    """Share of the descriptors that a process may open."""
    model_bodies: Size = Size(256 * 1024 * 1024)
    """Bytes of bodies that a worker holds for requests for models, each until the first event of its answer, because
    until then another target may have to have it. 0: any number."""


class Explain(Table, frozen=True):
    """[explain]: of which requests `edgeq explain REQUEST-ID` can tell: the last that were refused, degraded, slow, or
    answered by another target as the first has failed."""

    slow: Duration = Duration(1)
    """From the end of its head to the first byte of its answer. 0: only what was refused or has failed."""


class Config(Table, frozen=True):
    """The whole file."""

    listener: tuple[Listener, ...]
    upstream: dict[str, Upstream] = {}
    """Each key of a provider is one as well, once the file is loaded."""
    provider: dict[str, Provider] = {}
    model: dict[str, Model] = {}
    prompt: tuple[Prompt, ...] = ()
    accounts: Accounts | None = None
    route: tuple[Route, ...] = ()
    """Empty with a single upstream: everything goes there."""
    tenant: Tenant = Tenant()
    rate: tuple[Rate, ...] = ()
    server: Server = Server()
    forward: Forward = Forward()
    access_log: AccessLog = AccessLog()
    log: EventLog = EventLog()
    trace: Trace | None = None
    dns: Dns = Dns()
    protect: Protect = Protect()
    explain: Explain = Explain()
