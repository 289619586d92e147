"""Real questions to a process that show whether it is ready: each raises until it is."""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import asyncpg
import grpc
import redis.asyncio
from grpc_health.v1 import health_pb2

Probe = Callable[[], Awaitable[None]]
"""Asks once. Any exception means "not yet"."""

_TIMEOUT = 2.0


class NotReadyError(Exception):
    """The process answers, but not that it is ready."""


def grpc_health(target: str) -> Probe:
    """Probe ``grpc.health.v1`` of ``host:port``."""

    async def probe() -> None:
        async with grpc.aio.insecure_channel(target) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            answer = await check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT)
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise NotReadyError("not serving")

    return probe


def http_status(url: str, expected: int = 200) -> Probe:
    """Probe a URL for its status."""

    async def probe() -> None:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout) as client, client.get(url) as answer:
            if answer.status != expected:
                raise NotReadyError(f"answers {answer.status}")

    return probe


def gateway_answers(url: str) -> Probe:
    """Probe the whole way through the edge: an unknown session is refused over REST and over WebSocket."""
    unknown = {"session_id": "00000000-0000-4000-8000-000000000000"}

    async def probe() -> None:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout) as client:
            async with client.get(f"{url}/api/status", params=unknown) as answer:
                if answer.status != 404 or (await answer.json())["code"] != "SESSION_NOT_FOUND":
                    raise NotReadyError(f"answers {answer.status}")
            async with client.ws_connect(f"{url}/ws", params=unknown) as socket:
                await socket.receive(timeout=_TIMEOUT)
                if socket.close_code != 4404:
                    raise NotReadyError(f"closes with {socket.close_code}")

    return probe


def redis_ping(url: str) -> Probe:
    """Probe a Redis server; one that still loads its data is not ready."""

    async def probe() -> None:
        client = redis.asyncio.Redis.from_url(url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT)
        async with client:
            await client.ping()

    return probe


def postgres_query(url: str) -> Probe:
    """Probe a PostgreSQL server with a query."""

    async def probe() -> None:
        connection = await asyncpg.connect(url, timeout=_TIMEOUT)
        try:
            await connection.fetchval("SELECT 1", timeout=_TIMEOUT)
        finally:
            await asyncio.shield(connection.close(timeout=_TIMEOUT))

    return probe
