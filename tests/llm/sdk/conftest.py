"""The services that the tests of this directory are run against, and clients of the official SDKs, unchanged."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import anthropic
import openai
import pytest

from tests.llm.sdk.clock import Clock
from tests.llm.sdk.support import UPSTREAMS
from tests.support import llm_service
from tests.support.llm_service import KEY, Service


@pytest.fixture(scope="package")
def services() -> Iterator[dict[str, Service]]:
    """All of them, once for the whole directory."""
    with llm_service.services() as found:
        yield found


@pytest.fixture(params=UPSTREAMS)
def service(request: pytest.FixtureRequest, services: dict[str, Service]) -> Service:
    """Each in turn."""
    found: Service = services[request.param]
    return found


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    """OpenAI's SDK, which tries once."""
    with openai.OpenAI(api_key=KEY, base_url=service.openai_url, max_retries=0, timeout=60) as made:
        yield made


@pytest.fixture
def claude(service: Service) -> Iterator[anthropic.Anthropic]:
    """Anthropic's SDK, which tries once."""
    with anthropic.Anthropic(api_key=KEY, base_url=service.anthropic_url, max_retries=0, timeout=60) as made:
        yield made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """For both SDKs."""
    made = Clock()
    monkeypatch.setattr("openai._base_client.time", made)
    monkeypatch.setattr("anthropic._base_client.time", made)
    return made


@pytest.fixture
def collected_between_tests() -> Iterator[None]:
    """No garbage is collected meanwhile.

    A stream that is left is garbage of an event loop. Collected by another thread, in the middle of what the loop does
    with it, CPython 3.11 complains of it ("async generator already executing"), whoever's garbage it is.
    """
    gc.collect()
    gc.disable()
    yield
    gc.enable()
