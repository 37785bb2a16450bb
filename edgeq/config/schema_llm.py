"""What `edgeq.toml` may say of models: providers' keys, models and their targets, routes that serve them, prompts,
accounts.

[provider.NAME] itself stands in `schema.py`: it is an upstream, and has its tables.
"""

from __future__ import annotations

from typing import Final, Literal

from edgeq.config.base import Duration, Integer, Number, Size, Table, Text


class TokenLimits(Table, frozen=True):
    """What somebody may use, machine-wide. 0: no limit. What a request will use is reserved before it is sent, and
    corrected once its usage is known."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    """Input and output together."""
    input_tokens_per_minute: int = 0
    """Without what a provider has read from its cache."""
    output_tokens_per_minute: int = 0
    concurrent: int = 0
    """Requests in flight."""
    money_per_day: float = 0.0
    """In the currency of the prices; a day begins at midnight UTC."""
    money_per_month: float = 0.0


SHORT_LIMITS: Final = {
    "rpm": "requests_per_minute",
    "tpm": "tokens_per_minute",
    "itpm": "input_tokens_per_minute",
    "otpm": "output_tokens_per_minute",
    "concurrent": "concurrent",
    "per-day": "money_per_day",
    "per-month": "money_per_month",
}
"""What the limits of a virtual key or a tenant are called at the command line."""


class ProviderKey(Table, frozen=True):
    """An element of [provider.NAME] keys: an account at the provider, with limits and a state of its own."""

    key: str
    """"credential:NAME" (a file that systemd hands to the service), "env:NAME", or the secret itself, which is masked
    wherever the configuration is shown."""
    name: str = ""
    """In names of resources; empty: its number."""
    weight: int = 1
    limits: TokenLimits | None = None
    """Of each model at this key; absent: those of the provider."""


class Price(Table, frozen=True):
    """What a million tokens cost, in one currency for all of the file."""

    input: float = 0.0
    output: float = 0.0
    cached: float = -1.0
    """Input that the provider has read from its cache; -1: as input."""
    cache_write: float = -1.0
    """Input that the provider has put into its cache; -1: as input."""


class Target(Table, frozen=True):
    """An element of [model.NAME] targets."""

    provider: str
    model: str = ""
    """As the provider calls it; empty: as here."""
    weight: int = 1
    """For balance = "weighted"."""
    price: Price | None = None
    """Absent: nobody knows; it counts as nothing, in usage and for budgets, and `edgeq check` says so. {}: free."""
    limits: TokenLimits | None = None
    """Of this model at each key of the provider; absent: those of the key."""
    max_tokens: int = 4096
    """Where the provider must be told how long an answer may be, and the client has not said it; and what is reserved
    of limits for such a request while no answer of the model is known."""


class Model(Table, frozen=True):
    """[model.NAME]: a name that clients use, and who answers for it."""

    targets: tuple[Target, ...]
    """In order: the first that can; or by weight. The one that has answered lately what begins alike goes first
    (`affinity` of the route)."""
    balance: Literal["ordered", "weighted"] = "ordered"
    aliases: tuple[str, ...] = ()
    limits: TokenLimits = TokenLimits()
    """Of all requests for this model together."""
    degrade: str = ""
    """Name of another model, usually a smaller one, that answers what no target of this one has room for, in places or
    in tokens, or its limits refuse; the answer says so in x-edgeq-model. Not where the route does not serve it, or the
    key may not use it. Empty: none."""
    too_long: Literal["refuse", "next"] = "refuse"
    """Of a request for which the window of a target is too small: the client is told so, in the words of the provider;
    or the next target is asked, whose window should be larger."""
    hedge: str = "off"
    """When a second target is asked as well because the first event is late: "2s", or "p95" of this model."""


class PromptCache(Table, frozen=True):
    """[route.llm.cache], [prompt.cache]: answers to identical requests, in the memory of each worker."""

    max_bytes: Size = Size(64 * 1024 * 1024)
    max_object: Size = Size(1024 * 1024)
    ttl: Duration = Duration(300)
    share: Literal["tenant", "all"] = "tenant"
    """Whose answers a tenant may get: his own, or everybody's."""
    join: bool = True
    """Identical requests that are in flight at the same time are one."""


class RouteLlm(Table, frozen=True):
    """[route.llm]: the route serves models. `llm = {}` switches it on with these defaults."""

    mode: Literal["lenient", "strict"] = "lenient"
    """What a target's dialect cannot say: dropped, and named in x-edgeq-dropped; or refused."""
    models: tuple[str, ...] = ()
    """Names of the models that it serves; empty: all."""
    model: str = ""
    """Answers if the request names none. Empty: such a request is refused."""
    limits: TokenLimits = TokenLimits()
    """Of each tenant."""
    body_bytes: Size = Size(32 * 1024 * 1024)
    first_token: Duration = Duration(60)
    """From the sending of a request for a stream to the first event of its answer; then the next target is asked. Whole
    answers have `timeouts.first_byte` of their provider."""
    between_tokens: Duration = Duration(60)
    """For more of a stream that has begun; comments and pings of the provider are none, but within a thought."""
    keepalive: Duration = Duration(15)
    """A stream that has nothing to say sends a comment so often, while it is queued, too; 0: never."""
    disconnect: Literal["cancel", "drain"] = "cancel"
    """When the client leaves: the upstream's connection is closed; or its answer is read to the end, for its usage, for
    `drain` at most."""
    drain: Duration = Duration(30)
    attempts: int = 3
    """Targets and keys that are asked for one request, the first and a hedge included."""
    cache: PromptCache | None = None
    affinity: Size = Size(4096)
    """Requests that begin with the same so many bytes of messages go where the last of them went, for the caches of
    providers, unless it is saturated there. 0: they do not."""
    tell_cost: bool = False
    """A whole answer says in x-edgeq-cost what it has cost, by the `price` of its target. Of a stream that is not known
    yet when its head goes; the access log and `edgeq usage` have it."""


class Variable(Table, frozen=True):
    """A variable of a prompt."""

    type: Literal["string", "integer", "number", "boolean", "enum", "list"] = "string"
    required: bool = True
    default: str | Integer | Number | bool | tuple[str, ...] | None = None
    max_length: int = 100_000
    """In characters, of a string, or of each item of a list."""
    min: Number | None = None
    """Of a number, or of how many items a list has."""
    max: Number | None = None
    values: tuple[str, ...] = ()
    """Of an enum."""
    help: str = ""


class PromptMessage(Table, frozen=True):
    """A message of a prompt, with its variables in double braces: "Summarize: {{text}}". Two braces themselves are
    written "{{{{"."""

    role: Literal["system", "user", "assistant"]
    text: Text


class Prompt(Table, frozen=True):
    """[[prompt]]: a template that is a path of its own."""

    name: str
    path: str
    """"/p/summarize": POST of the variables as JSON."""
    route: str
    """The route with [route.llm] by whose terms it is served; a path of its own needs none in match."""
    model: str
    version: str = "1"
    """Clients may ask for it with `?version=`; several prompts may have one path, and the last is the default."""
    messages: tuple[PromptMessage, ...] = ()
    variables: dict[str, Variable] = {}
    max_tokens: int = 0
    temperature: float = -1.0
    """-1: the model's own."""
    json_schema: Text = Text("")
    """The answer's JSON Schema, in JSON."""
    answer: Literal["text", "json", "chat"] = "text"
    """{"text": ...}; what the model has written, as JSON; or the chat completion itself, as a stream if the client
    accepts one."""
    limits: TokenLimits = TokenLimits()
    """Of each tenant, at this prompt."""
    cache: PromptCache | None = None
    """Of its own; absent: that of its route, if it has one."""
    priority: Literal["critical", "default", "sheddable"] = "default"

    def cache_name(self) -> str:
        """What its cache is called: no route has a slash in its name."""
        return f"{self.path}@{self.version}"


class Accounts(Table, frozen=True):
    """[accounts]: virtual keys, and what is used by whom. Without it everybody may use every model."""

    store: str = "/var/lib/edgeq/accounts.sqlite"
    """File of keys (hashed) and usage."""
    flush: Duration = Duration(1)
    """How often usage is written: what a crash can lose."""
    log_prompts: bool = False
    """Write prompts and answers to the store, without what looks like a secret, an address or a number of a card."""
    retention: Duration = Duration(90 * 86400)
    """Of usage by request; sums by day are kept."""
