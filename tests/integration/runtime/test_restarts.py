"""A process that ends and its successor, as their callers see them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from tradebot.session.v1 import session_service_pb2 as pb
from tradebot.session.v1 import session_service_pb2_grpc

from local.ports import PortBlock
from services.runtime.channel import open_channel
from services.runtime.interceptors import was_not_processed
from tests.support.eventually import eventually
from tests.support.session_fake import FakeSession, serving

ASKED = pb.GetBalanceRequest(session_id="a")
ANSWER = pb.GetBalanceResponse(success=True, session_id="a")


@pytest.fixture
def port() -> Iterator[int]:
    with PortBlock.claim() as ports:
        yield ports.pick()


@pytest.fixture
async def stub(port: int) -> AsyncIterator[session_service_pb2_grpc.SessionServiceStub]:
    async with open_channel(f"127.0.0.1:{port}", patience=30.0) as channel:
        yield session_service_pb2_grpc.SessionServiceStub(channel)


class Held(FakeSession):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        self.answers["GetBalance"] = self.answer

    async def answer(self, _request: Any) -> pb.GetBalanceResponse:
        self.begun.set()
        await self.go.wait()
        return ANSWER


async def test_what_is_under_way_is_answered_and_what_comes_now_goes_to_the_successor(port: int, stub: Any) -> None:
    old, new = Held(), FakeSession()
    new.answers["GetBalance"] = ANSWER
    ending = serving(old, port, drain_calls=30)
    await ending.__aenter__()
    first = asyncio.ensure_future(stub.GetBalance(ASKED, timeout=60))
    await old.begun.wait()
    stopped = asyncio.create_task(ending.__aexit__(None, None, None))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as bare:
        plain = session_service_pb2_grpc.SessionServiceStub(bare)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await plain.GetBalance(ASKED, timeout=60)
    assert was_not_processed(refused.value)
    trailers = dict(refused.value.trailing_metadata() or ())
    assert (trailers["x-http-status"], trailers["x-not-processed"]) == ("503", "1")
    second = asyncio.ensure_future(stub.GetBalance(ASKED, timeout=60))

    async def refused_again() -> bool:
        return len(old.refused) == 2

    # Then it waits for the successor. At the very moment of a server's end gRPC itself would cancel it.
    await eventually(refused_again, within=30)
    old.go.set()
    assert await first == ANSWER
    await stopped
    async with serving(new, port):
        assert await second == ANSWER
    assert ([call.rpc for call in old.calls], [call.rpc for call in new.calls]) == (["GetBalance"], ["GetBalance"])


async def test_a_call_waits_for_a_peer_that_is_not_there_yet(port: int, stub: Any) -> None:
    call = asyncio.ensure_future(stub.GetBalance(ASKED, timeout=60))
    fake = FakeSession()
    fake.answers["GetBalance"] = ANSWER
    async with serving(fake, port):
        assert await call == ANSWER


async def test_a_peer_that_stays_away_is_unavailable_in_the_end(port: int) -> None:
    async with open_channel(f"127.0.0.1:{port}", patience=0.2) as channel:
        stub = session_service_pb2_grpc.SessionServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.GetBalance(ASKED, timeout=60)
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not was_not_processed(failed.value)


async def test_what_may_have_been_done_is_never_asked_twice(port: int, stub: Any) -> None:
    fake = FakeSession()
    fake.aborts["GetBalance"] = (grpc.StatusCode.UNAVAILABLE, "cut")
    async with serving(fake, port):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.GetBalance(ASKED, timeout=60)
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert [call.rpc for call in fake.calls] == ["GetBalance"]
