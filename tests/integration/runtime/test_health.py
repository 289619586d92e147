"""What a process says of itself to whoever asks whether to call it."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tradebot.session.v1 import session_service_pb2 as pb
from tradebot.session.v1 import session_service_pb2_grpc

from services.runtime import server
from tests.support.eventually import eventually
from tests.support.session_fake import FakeSession, serving

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_service_that_does_not_want_calls_says_so_until_it_does() -> None:
    fake = FakeSession()
    async with serving(fake) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its rpcs are attributes, unknown to its types

        async def status(service: str) -> int:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            return int(answer.status)

        for service in ("", "tradebot.session.v1.SessionService"):
            assert await status(service) == SERVING

        async def says(wanted: int) -> bool:
            services = ("", "tradebot.session.v1.SessionService")
            return await asyncio.gather(*map(status, services)) == [wanted] * 2

        fake.ready = False
        await eventually(lambda: says(NOT_SERVING))
        fake.ready = True
        await eventually(lambda: says(SERVING))


async def test_one_that_never_wanted_calls_does_not_begin_by_serving() -> None:
    fake = FakeSession()
    fake.ready = False
    async with serving(fake) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert answer.status == NOT_SERVING


async def test_one_that_ends_says_so_until_it_is_gone_however_ready_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_HEALTH_INTERVAL", 0.001)
    fake, begun, go = FakeSession(), asyncio.Event(), asyncio.Event()

    async def answer(_request: Any) -> pb.GetBalanceResponse:
        begun.set()
        await go.wait()
        return pb.GetBalanceResponse(success=True)

    fake.answers["GetBalance"] = answer
    ending = serving(fake, drain_calls=60)
    port = await ending.__aenter__()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        under_way = asyncio.ensure_future(
            session_service_pb2_grpc.SessionServiceStub(channel).GetBalance(pb.GetBalanceRequest(), timeout=60)
        )
        await begun.wait()
        ended = asyncio.create_task(ending.__aexit__(None, None, None))
        stub: Any = health_pb2_grpc.HealthStub(channel)

        async def says_so() -> bool:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=30)
            return bool(answer.status == NOT_SERVING)

        await eventually(says_so)
        assert all([await says_so() for _ in range(50)])
        go.set()
        assert (await under_way).success
        await ended
