"""The SDKs' asynchronous clients leave: out of a stream, by the cancellation of its task, before anything has come.

The provider's connection is closed each time, nothing of the request stays behind (`Stand.leftover`), and what else the
same client has asked for is answered. The clients stay open meanwhile: it is the request that is left, not they.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import anthropic
import openai
import pytest

from tests.llm.gateway.support import TIMEOUT_S, Stand, standing
from tests.llm.sdk.support import HELLO
from tests.support.llm_service import KEY

pytestmark = pytest.mark.usefixtures("collected_between_tests")

MAX: Final = 1000


@pytest.fixture(scope="module")
def running_stand() -> Iterator[Stand]:
    """One gateway of two workers for all tests here."""
    with standing() as stand:
        yield stand


@pytest.fixture
def stand(running_stand: Stand) -> Stand:
    """Nothing is left in it when a test begins."""
    running_stand.wait_idle()
    return running_stand


@dataclass(frozen=True, slots=True)
class Clients:
    """One of each SDK, which tries once."""

    gpt: openai.AsyncOpenAI
    claude: anthropic.AsyncAnthropic


@contextlib.asynccontextmanager
async def clients_of(stand: Stand) -> AsyncIterator[Clients]:
    """They are closed at last."""
    origin = "http://{}:{}".format(*stand.address)
    async with (
        openai.AsyncOpenAI(api_key=KEY, base_url=f"{origin}/v1", max_retries=0, timeout=TIMEOUT_S) as gpt,
        anthropic.AsyncAnthropic(api_key=KEY, base_url=origin, max_retries=0, timeout=TIMEOUT_S) as claude,
    ):
        yield Clients(gpt, claude)


async def chat(clients: Clients, model: str, stream: bool) -> Any:
    return await clients.gpt.chat.completions.create(model=model, messages=HELLO, stream=stream)


async def response(clients: Clients, model: str, stream: bool) -> Any:
    return await clients.gpt.responses.create(model=model, input="hello", stream=stream)


async def message(clients: Clients, model: str, stream: bool) -> Any:
    return await clients.claude.messages.create(model=model, max_tokens=MAX, messages=HELLO, stream=stream)


Ask = Callable[[Clients, str, bool], Awaitable[Any]]
"""Returns an answer, or the SDK's object for a stream of them."""
ASKS: Final[tuple[Ask, ...]] = (chat, response, message)


class Reader:
    """Reads a stream in a task of its own."""

    def __init__(self, ask: Ask, clients: Clients, model: str, enough: int = 0) -> None:
        """`enough`: it leaves after so many events; 0: at the end."""
        self.events = 0
        self.has_begun = asyncio.Event()
        self.task = asyncio.create_task(self._read(ask, clients, model, enough))

    async def _read(self, ask: Ask, clients: Clients, model: str, enough: int) -> None:
        async with await ask(clients, model, True) as stream:
            async for _ in stream:
                self.events += 1
                self.has_begun.set()
                if self.events == enough:
                    break

    async def cancel(self) -> None:
        """Once it has seen an event."""
        await asyncio.wait_for(self.has_begun.wait(), TIMEOUT_S)
        await cancel(self.task)


async def cancel(task: asyncio.Task[Any]) -> None:
    """Cancel it, and wait until it is."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def wait_left(stand: Stand, model: str, cancelled: int) -> None:
    """Wait until the provider has seen so many leave, and nothing is left of any request. The clients run on."""
    await asyncio.to_thread(stand.wait_counts, stand.called(model), open=0, cancelled=cancelled)
    await asyncio.to_thread(stand.wait_idle)


@pytest.mark.parametrize("model", ["long-oa", "long-an", "long-ge"])
def test_in_the_middle_of_a_stream(stand: Stand, model: str) -> None:
    """By `break`, and by the cancellation of who reads; the same clients are answered afterwards."""
    before = stand.counts(stand.called(model))["cancelled"]

    async def leave() -> None:
        async with clients_of(stand) as clients:
            leavers = [Reader(ask, clients, model, enough=3) for ask in ASKS]
            victims = [Reader(ask, clients, model) for ask in ASKS]
            await asyncio.gather(*(one.task for one in leavers), *(one.cancel() for one in victims))
            await wait_left(stand, model, before + len(leavers) + len(victims))
            for ask in ASKS:
                assert await ask(clients, model.replace("long", "plain"), False)

    asyncio.run(leave())


@pytest.mark.parametrize("model", ["slow-oa", "slow-an", "slow-ge", "early-oa", "early-an", "early-ge"])
def test_before_anything_has_come(stand: Stand, model: str) -> None:
    """Who waits for an answer, or for the first event of a stream, is cancelled."""
    name = stand.called(model)
    before = stand.counts(name)["cancelled"]

    async def leave() -> None:
        async with clients_of(stand) as clients:
            waiting = [asyncio.ensure_future(ask(clients, model, stream)) for ask in ASKS for stream in (False, True)]
            await asyncio.to_thread(stand.wait_counts, name, open=len(waiting))
            await asyncio.gather(*map(cancel, waiting))
            await wait_left(stand, model, before + len(waiting))

    asyncio.run(leave())


def test_others_do_not_notice(stand: Stand) -> None:
    """Of many streams that one client reads at once some are left; the rest come to their ends."""
    model = "long-oa"
    before = stand.counts(stand.called(model))["cancelled"]

    async def leave() -> None:
        async with clients_of(stand) as clients:
            readers = [Reader(ask, clients, "leaves") for ask in ASKS * 3]
            leavers = [Reader(ask, clients, model, enough=1) for ask in ASKS]
            victims = [Reader(ask, clients, model) for ask in ASKS]
            await asyncio.gather(*(one.cancel() for one in victims), *(one.task for one in readers + leavers))
            assert all(one.events > 60 for one in readers)
            await wait_left(stand, model, before + len(leavers) + len(victims))

    asyncio.run(leave())


def test_a_client_is_closed(stand: Stand) -> None:
    """With all that it has asked for: what runs at the provider ends with it."""
    model = "long-oa"
    before = stand.counts(stand.called(model))["cancelled"]

    async def leave() -> None:
        async with clients_of(stand) as clients:
            readers = [Reader(ask, clients, model) for ask in ASKS]
            await asyncio.gather(*(one.has_begun.wait() for one in readers))
        await wait_left(stand, model, before + len(readers))
        await asyncio.gather(*(one.task for one in readers), return_exceptions=True)

    asyncio.run(leave())
