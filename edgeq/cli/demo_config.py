"""What `edgeq serve --demo` serves: the demo upstream, and models of the demo provider.

One server plays two providers. The first is asked first and is overloaded in three of ten cases, so that it can be seen
(in x-edgeq-target) how the second one answers instead.
"""

from __future__ import annotations

from string import Template
from typing import Final

BEHAVIOUR: Final = "latency=150ms,jitter=100ms,rate=40,tokens=24"
"""Of the demo provider: as quick as a small model."""

_TEXT: Final = Template("""\
[upstream.default]
endpoints = ["$upstream"]

[provider.shaky]
dialect = "anthropic"
url = "$provider/v1"
headers = { x-mock = "error=529,chance=0.3" }

[provider.steady]
url = "$provider/v1"

[model.demo]
targets = [
  { provider = "shaky", price = { input = 3.0, output = 15.0 } },
  { provider = "steady", price = { input = 2.5, output = 10.0 } },
]

[model.demo-embedding]
targets = [{ provider = "steady", price = { input = 0.1 } }]

[[prompt]]
name = "summarize"
path = "/p/summarize"
route = "models"
model = "demo"
messages = [{ role = "user", text = "Summarize: {{text}}" }]
variables.text = { max_length = 10000 }

[[route]]
name = "models"
match = { path = "/v1/*" }
llm = {}

[[route]]
name = "default"
upstream = "default"
""")


def demo_config(upstream_url: str, provider_url: str) -> str:
    """As TOML; the listener is still to come."""
    return _TEXT.substitute(upstream=upstream_url, provider=provider_url)
