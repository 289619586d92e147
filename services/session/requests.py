"""Reads and checks what callers send. A refusal names the field and never repeats what was sent."""

import math
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

from tradebot.session.v1 import session_service_pb2 as pb

from services.runtime.secret import Secret
from services.session.codec import GATE_WORDS
from services.session.domain.bot import BotSettings
from services.session.domain.errors import InvalidArgumentError, TradeNotFoundError
from services.session.domain.evidence import GateMode
from services.session.domain.trade import TradeRequest, TradeState
from services.session.domain.values import (
    TIMEFRAMES,
    AccountType,
    Broker,
    Direction,
    InstrumentType,
    SessionKey,
    TradeId,
    TradeSource,
    session_key,
)
from services.session.ports import TwoFactor
from services.session.use_cases.sessions import ConnectCommand

_MAX_MONEY: Final = 1_000_000_000.0
_CENT: Final = Decimal("0.01")
_BLITZ: Final = (5, 300)
_TURBO_MINUTES: Final = 5
"""Longest turbo option; what is longer lies on the quarter-hour grid of the binary options."""
_DIGITAL_MINUTES: Final = (1, 5, 15)

_Word = TypeVar("_Word", bound=StrEnum)


class SessionRequest(Protocol):
    """Any request of the service: it names a session."""

    session_id: str

    def HasField(self, field_name: Any, /) -> bool:
        """Tell whether an optional field was sent."""
        ...


def optional_key_of(request: SessionRequest, metadata: Mapping[str, str]) -> SessionKey | None:
    """Return the key of the session that asks for what is no session's own, or None; raises as ``session_id_of``."""
    if not request.HasField("session_id") or not request.session_id:
        return None
    return key_of(request, metadata)


def session_id_of(request: SessionRequest, metadata: Mapping[str, str]) -> str:
    """Return the secret id of the request's session.

    The gateway copies the id it limited and authorised into ``x-session-id``. A request that says another one (a body
    with both spellings of the field) is refused.

    Raises:
        InvalidArgumentError: It is missing, or not the one that the gateway saw.
    """
    if not request.HasField("session_id") or not request.session_id:
        raise InvalidArgumentError("session_id", "is required")
    _seen_by_gateway(request.session_id, metadata)
    return request.session_id


def key_of(request: SessionRequest, metadata: Mapping[str, str]) -> SessionKey:
    """Return the key of the request's session; raises as ``session_id_of``."""
    return session_key(session_id_of(request, metadata))


def _seen_by_gateway(session_id: str, metadata: Mapping[str, str]) -> None:
    seen = metadata.get("x-session-id", "")
    if seen and seen != session_id:
        raise InvalidArgumentError("session_id", "is given twice, with different values")


def connect(request: pb.ConnectRequest, metadata: Mapping[str, str]) -> ConnectCommand:
    """Read a connect."""
    session_id = None
    if request.HasField("session_id") and request.session_id:
        _seen_by_gateway(request.session_id, metadata)
        session_id = Secret(request.session_id)
    two_factor = None
    if request.HasField("two_factor"):
        two_factor = TwoFactor(
            challenge=Secret(_text(request.two_factor, "challenge", "two_factor.challenge", 4096)),
            method=_text(request.two_factor, "method", "two_factor.method", 32),
            code=Secret(_plain(request.two_factor.code, "two_factor.code", 32)),
        )
    return ConnectCommand(
        broker=_word(_text(request, "broker", "broker", 16), Broker, "broker"),
        account_type=_word(request.account_type, AccountType, "account_type")
        if request.HasField("account_type")
        else AccountType.PRACTICE,
        email=Secret(_text(request, "email", "email", 254)),
        password=Secret(_text(request, "password", "password", 256)),
        session_id=session_id,
        two_factor=two_factor,
    )


def bot_settings(request: pb.StartBotRequest) -> BotSettings:
    """Read a bot's settings, defaults filled in."""
    default = BotSettings()
    duration, instrument_type = _life(request, None)
    return BotSettings(
        asset=_text(request, "asset", "asset", 64) if request.HasField("asset") else default.asset,
        timeframe=timeframe(request, default.timeframe),
        amount=_money(request, "amount") or default.amount,
        duration=duration,
        instrument_type=instrument_type,
        model=_text(request, "model", "model", 64) if request.HasField("model") and request.model else "",
        max_trades=_count(request, "max_trades"),
        stop_loss=_money(request, "stop_loss"),
        take_profit=_money(request, "take_profit"),
        daily_loss_limit=_money(request, "daily_loss_limit"),
        max_consecutive_losses=_count(request, "max_consecutive_losses"),
        min_payout=_fraction(request, "min_payout"),
        gate=_gate(request),
    )


def _gate(request: pb.StartBotRequest) -> GateMode | None:
    if not request.HasField("evidence_gate"):
        return None
    modes = {word: mode for mode, word in GATE_WORDS.items()}
    # An empty word is no word: with real money the gate is opened by nothing but "off".
    if request.evidence_gate not in modes:
        raise InvalidArgumentError("evidence_gate", 'must be "on" or "off"')
    return modes[request.evidence_gate]


def trade(request: pb.PlaceTradeRequest, key: SessionKey) -> TradeRequest:
    """Read a manual trade; an empty asset stands for the session's."""
    amount = _money(request, "amount")
    if amount is None:
        raise InvalidArgumentError("amount", "is required")
    kind = None
    if request.HasField("instrument_type"):
        kind = _word(request.instrument_type, InstrumentType, "instrument_type")
    duration, instrument_type = _life(request, kind)
    request_id = None
    if request.HasField("client_request_id"):
        request_id = _text(request, "client_request_id", "client_request_id", 64)
    return TradeRequest(
        session_key=key,
        source=TradeSource.MANUAL,
        asset=_text(request, "asset", "asset", 64) if request.HasField("asset") else "",
        instrument_type=instrument_type,
        direction=_word(_text(request, "direction", "direction", 16), Direction, "direction"),
        amount=amount,
        duration=duration,
        idempotency_key=request_id,
    )


def trade_id(text: str) -> TradeId:
    """Read a trade's id. Raises TradeNotFoundError for what cannot be one."""
    try:
        return TradeId(str(UUID(text)))
    except ValueError:
        raise TradeNotFoundError from None


def timeframe(request: Any, default: int | None = None) -> int:
    """Read a candle length, one of the brokers' sizes."""
    if not request.HasField("timeframe"):
        if default is None:
            raise InvalidArgumentError("timeframe", "is required")
        return default
    if request.timeframe not in TIMEFRAMES:
        raise InvalidArgumentError("timeframe", f"must be one of {', '.join(map(str, TIMEFRAMES))} seconds")
    return int(request.timeframe)


def model_name(text: str) -> str:
    """Read a model's name."""
    if not text:
        raise InvalidArgumentError("model", "is required")
    return _plain(text, "model", 64)


def model_version(request: pb.GetModelRequest) -> str:
    """Read a model's version; empty is the active one."""
    return _plain(request.version, "version", 64) if request.HasField("version") else ""


def asset(text: str) -> str:
    """Read an asset's name."""
    if not text:
        raise InvalidArgumentError("asset", "is required")
    return _plain(text, "asset", 64)


def candle_count(request: pb.ListCandlesRequest) -> int:
    """Read how many candles are wanted: 1 to 1000, default 100."""
    return _within(request, "count", 1, 1000, 100)


def trades_limit(request: pb.ListTradesRequest) -> int:
    """Read how many trades are wanted: at least 1, default 50; more than 500 is 500."""
    return min(_within(request, "limit", 1, 2**31 - 1, 50), 500)


def trades_status(request: pb.ListTradesRequest) -> str | None:
    """Read the status that trades must have, or None for any."""
    if not request.HasField("status") or not request.status:
        return None
    if request.status not in {state.status for state in TradeState}:
        raise InvalidArgumentError("status", "is not a status of a trade")
    return request.status


def page_token(request: pb.ListTradesRequest) -> str:
    """Read a page token; empty is the first page."""
    return _plain(request.page_token, "page_token", 256) if request.HasField("page_token") else ""


def export_format(request: pb.ExportTradesRequest) -> None:
    """Check the format of an export."""
    if request.HasField("format") and request.format not in {"", "csv"}:
        raise InvalidArgumentError("format", 'must be "csv"')


def last_seq(request: pb.WatchEventsRequest) -> int | None:
    """Read the last seq a client has seen, or None."""
    return request.last_seq if request.HasField("last_seq") else None


def _text(request: Any, name: str, field: str, longest: int) -> str:
    value = getattr(request, name)
    if not value:
        raise InvalidArgumentError(field, "is required")
    return _plain(value, field, longest)


def _plain(value: str, field: str, longest: int) -> str:
    if len(value) > longest:
        raise InvalidArgumentError(field, f"must have at most {longest} characters")
    if not value.isprintable():
        raise InvalidArgumentError(field, "must not hold control characters")
    return value


def _word(value: str, words: type[_Word], field: str) -> _Word:
    try:
        return words(value)
    except ValueError:
        choices = ", ".join(f'"{word}"' for word in words)
        raise InvalidArgumentError(field, f"must be one of {choices}") from None


def _money(request: Any, field: str) -> Decimal | None:
    if not request.HasField(field):
        return None
    value: float = getattr(request, field)
    if not math.isfinite(value) or value <= 0.0:
        raise InvalidArgumentError(field, "must be a number over 0")
    if value > _MAX_MONEY:
        raise InvalidArgumentError(field, "is too large")
    # repr is the shortest decimal that means this double: what the client wrote.
    amount = Decimal(repr(value))
    cents = amount.quantize(_CENT)
    if amount != cents:
        raise InvalidArgumentError(field, "must have at most 2 decimals")
    return cents


def _count(request: Any, field: str) -> int | None:
    return _within(request, field, 1, 1_000_000, 0) or None


def _within(request: Any, field: str, low: int, high: int, default: int) -> int:
    if not request.HasField(field):
        return default
    value: int = getattr(request, field)
    if not low <= value <= high:
        raise InvalidArgumentError(field, f"must be {low} to {high}")
    return value


def _fraction(request: Any, field: str) -> float | None:
    if not request.HasField(field):
        return None
    value: float = getattr(request, field)
    if not 0.0 <= value <= 10.0:
        raise InvalidArgumentError(field, "must be a fraction from 0 to 10")
    return value


def _life(request: Any, kind: InstrumentType | None) -> tuple[timedelta, InstrumentType]:
    """Read how long an option lives, and its kind where none was asked for."""
    if request.HasField("duration_seconds"):
        if request.HasField("duration"):
            raise InvalidArgumentError("duration_seconds", "must not be given together with duration")
        seconds = _within(request, "duration_seconds", 1, 86_400, 0)
        kind = kind or InstrumentType.BLITZ
        field = "duration_seconds"
    else:
        seconds = 60 * _within(request, "duration", 1, 1440, 1)
        kind = kind or (InstrumentType.TURBO if seconds <= 60 * _TURBO_MINUTES else InstrumentType.BINARY)
        field = "duration"
    match kind:
        case InstrumentType.BLITZ:
            if not _BLITZ[0] <= seconds <= _BLITZ[1]:
                raise InvalidArgumentError(field, f"must be {_BLITZ[0]} to {_BLITZ[1]} seconds for blitz options")
        case InstrumentType.TURBO:
            if seconds % 60 or seconds > 60 * _TURBO_MINUTES:
                raise InvalidArgumentError(field, f"must be 1 to {_TURBO_MINUTES} full minutes for turbo options")
        case InstrumentType.DIGITAL:
            if seconds not in {60 * minutes for minutes in _DIGITAL_MINUTES}:
                raise InvalidArgumentError(field, "must be 1, 5 or 15 minutes for digital options")
        case InstrumentType.BINARY:
            if seconds % 60:
                raise InvalidArgumentError(field, "must be full minutes for binary options")
    return timedelta(seconds=seconds), kind
