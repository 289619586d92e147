"""Candle frames for whoever watches a session: at most one a second, nothing while nobody looks."""

from datetime import datetime
from typing import Final, Protocol

from services.runtime.clock import Clock
from services.session.domain.values import AccountType, Candle, SessionKey
from services.session.ports import BrokerGateway, Signals

_EVERY: Final = 1.0
"""Seconds between two frames of the candle in progress."""
_UNWATCHED: Final = 10.0
"""Seconds without a watcher after which the candles are not followed any more."""


class EncodeCandle(Protocol):
    """Serializes a candle frame."""

    def __call__(
        self, asset: str, timeframe: int, candle: Candle, *, closed: bool, time: datetime, account_type: AccountType
    ) -> bytes:
        """Return a tradebot.session.v1.Event without session_id and seq."""
        ...


class CandleFrames:
    """Publishes the candles of one session's asset and timeframe."""

    def __init__(
        self,
        key: SessionKey,
        account_type: AccountType,
        *,
        broker: BrokerGateway,
        signals: Signals,
        clock: Clock,
        encode: EncodeCandle,
    ) -> None:
        self._key = key
        self._account_type = account_type
        self._broker = broker
        self._signals = signals
        self._clock = clock
        self._encode = encode

    async def run(self, asset: str, timeframe: int) -> None:
        """Publish until nobody has watched for a while.

        Raises:
            BrokerUnavailableError: The candles were cut.
        """
        watched_at = self._clock.monotonic()
        published_at = float("-inf")
        async with self._broker.watch_candles(self._key, asset, timeframe) as candles:
            async for candle, closed in candles:
                now = self._clock.monotonic()
                if not closed and now - published_at < _EVERY:
                    continue
                payload = self._encode(
                    asset, timeframe, candle, closed=closed, time=self._clock.now(), account_type=self._account_type
                )
                published_at = now
                if await self._signals.publish_candle(self._key, payload):
                    watched_at = now
                elif now - watched_at > _UNWATCHED:
                    return
