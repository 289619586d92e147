"""How our processes call each other: one HTTP/2 channel per target, no client-side retries of what may have been done."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import grpc

from services.runtime.interceptors import was_not_processed

_OPTIONS = (
    # A retry inside the library could send an order twice; who may repeat a call repeats it openly.
    ("grpc.enable_retries", 0),
    # Find a dead peer within seconds, also between calls.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Come back quickly after a restart of the peer.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Not a back-off in truth: how long one attempt to connect may take, on a busy machine too.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)
_PATIENCE: Final = 8.0
"""Seconds that a call waits for a peer that is being restarted, which takes one on an idle machine; less than any caller of
ours waits."""


class SitOutRestarts(grpc.aio.UnaryUnaryClientInterceptor):
    """Lets a unary call wait while the peer is being replaced.

    A call waits as long as there is no connection to send it on, and is made again only if the peer said that it had not
    begun it. What may have been done is never repeated here: an order least of all.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._leaving = False
        self.channel: grpc.aio.Channel
        """The channel whose calls pass here; set once it is there."""

    async def intercept_unary_unary(
        self,
        # The type stubs know neither what it is nor what it gives.
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        """Make the call when there is a peer for it."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        timeout = client_call_details.timeout
        give_up = started + (self._patience if timeout is None else min(self._patience, timeout))
        while True:
            await self._connected(give_up)
            call = await continuation(_within(client_call_details, started + (timeout or 0.0) - loop.time()), request)
            if await call.code() is not grpc.StatusCode.UNAVAILABLE or loop.time() >= give_up:
                return call
            if not await _is_unprocessed(call):
                return call
            self._leaving = True

    async def _connected(self, give_up: float) -> None:
        """Wait for a connection to a peer that is not about to end, but no longer than until ``give_up``."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(give_up):
                while True:
                    state = self.channel.get_state(try_to_connect=True)
                    ready = state is grpc.ChannelConnectivity.READY
                    if not ready:
                        # The peer that was about to end has closed the connection; the next one is its successor's.
                        self._leaving = False
                    elif not self._leaving:
                        return
                    await self.channel.wait_for_state_change(state)
        # Whatever keeps it: the call finds out by itself.
        self._leaving = False


def _within(details: grpc.aio.ClientCallDetails, seconds: float) -> grpc.aio.ClientCallDetails:
    """Give a call that has a deadline what is left until then."""
    if details.timeout is None:
        return details
    return grpc.aio.ClientCallDetails(
        details.method, max(seconds, 0.0), details.metadata, details.credentials, details.wait_for_ready
    )


async def _is_unprocessed(call: Any) -> bool:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return was_not_processed(error)
    return False


def open_channel(target: str, patience: float = _PATIENCE) -> grpc.aio.Channel:
    """Open a channel to ``host:port``. The caller closes it.

    Args:
        target: Where the peer is.
        patience: Seconds that a unary call waits for a peer that is being restarted.
    """
    sitting_out = SitOutRestarts(patience)
    channel = grpc.aio.insecure_channel(target, options=_OPTIONS, interceptors=[sitting_out])
    sitting_out.channel = channel
    return channel
