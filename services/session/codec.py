"""Renders the session's values as the messages of tradebot.session.v1."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Final, assert_never

from google.protobuf.timestamp_pb2 import Timestamp
from tradebot.session.v1 import event_pb2, market_pb2, model_pb2, session_service_pb2, status_pb2, trade_pb2

from services.session.domain.bot import BotSettings, Usage
from services.session.domain.events import (
    BalanceChanged,
    BrokerConnectionChanged,
    Event,
    FaultHappened,
    LimitWasReached,
    LogWritten,
    SessionEnded,
    SessionStatus,
    SessionWillExpire,
    SignalMade,
    StatusUpdate,
    Totals,
    TradeClosed,
    TradeOpened,
    TradeRejected,
    TradeUnknown,
)
from services.session.domain.evidence import OPEN_WEALTH, GateMode, Record, wilson
from services.session.domain.model import ModelVersion
from services.session.domain.trade import Trade
from services.session.domain.values import (
    AccountType,
    Asset,
    BotStatus,
    BrokerConnection,
    Candle,
    InstrumentType,
)

GATE_WORDS: Final = {GateMode.EVIDENCE: "on", GateMode.OPEN: "off"}
"""The contract's words for who decides whether signals become orders."""


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def _optional(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def trade_to_proto(trade: Trade) -> trade_pb2.Trade:
    """Render a trade."""
    return trade_pb2.Trade(
        success=True,
        trade_id=trade.trade_id,
        client_request_id=trade.client_request_id,
        status=trade.state.status,
        asset=trade.asset,
        direction=trade.direction,
        instrument_type=trade.instrument_type,
        amount=float(trade.amount),
        currency=trade.currency,
        duration_seconds=int(trade.duration.total_seconds()),
        payout_rate=trade.payout_rate,
        entry_price=trade.entry_price,
        close_price=trade.close_price,
        profit=float(trade.profit),
        create_time=_timestamp(trade.create_time),
        open_time=_timestamp(trade.open_time),
        expiry_time=_timestamp(trade.expiry_time),
        close_time=_timestamp(trade.close_time),
        account_type=trade.account_type,
        broker=trade.broker,
        source=trade.source,
        model=trade.model,
        model_version=trade.model_version,
        reason=trade.reason,
        broker_order_id=trade.broker_order_id,
    )


def settings_to_proto(settings: BotSettings) -> status_pb2.BotSettings:
    """Render a bot's settings; limits that are not set stay absent."""
    blitz = settings.instrument_type is InstrumentType.BLITZ
    seconds = int(settings.duration.total_seconds())
    return status_pb2.BotSettings(
        asset=settings.asset,
        timeframe=settings.timeframe,
        amount=float(settings.amount),
        duration=None if blitz else seconds // 60,
        duration_seconds=seconds if blitz else None,
        model=settings.model,
        max_trades=settings.max_trades,
        stop_loss=_optional(settings.stop_loss),
        take_profit=_optional(settings.take_profit),
        daily_loss_limit=_optional(settings.daily_loss_limit),
        max_consecutive_losses=settings.max_consecutive_losses,
        min_payout=settings.min_payout,
        evidence_gate=None if settings.gate is None else GATE_WORDS[settings.gate],
    )


def _limits(settings: BotSettings | None, usage: Usage) -> status_pb2.Limits:
    limits = settings or BotSettings()
    return status_pb2.Limits(
        max_trades=limits.max_trades,
        trades=usage.run_trades,
        stop_loss=_optional(limits.stop_loss),
        take_profit=_optional(limits.take_profit),
        run_profit=float(usage.run_profit),
        daily_loss_limit=_optional(limits.daily_loss_limit),
        daily_profit=float(usage.daily_profit),
        max_consecutive_losses=limits.max_consecutive_losses,
        consecutive_losses=usage.consecutive_losses,
        min_payout=limits.min_payout,
    )


def _statistics(totals: Totals) -> status_pb2.Statistics:
    # The totals keep the plain mean of the payouts, so each decided trade weighs the same here.
    record = Record(
        wins=totals.wins,
        losses=totals.losses,
        ties=totals.ties,
        sold=totals.sold,
        staked=totals.staked,
        profit=totals.profit,
        payout_weight=Decimal(repr(totals.payout_sum)),
        decided_stake=Decimal(totals.wins + totals.losses),
    )
    interval = record.interval
    return status_pb2.Statistics(
        hit_rate=record.hit_rate or 0.0,
        hit_rate_low=interval.low,
        hit_rate_high=interval.high,
        break_even=record.break_even or 0.0,
        profit_per_stake=record.profit_per_stake or 0.0,
        verdict=record.words(),
    )


def _evidence_gate(status: SessionStatus, settings: BotSettings) -> status_pb2.EvidenceGate:
    gate = status.gate
    mode = settings.gate_mode(status.account_type)
    interval = wilson(gate.hits, gate.decided)
    return status_pb2.EvidenceGate(
        mode=GATE_WORDS[mode],
        state="open" if gate.lets_through(mode) else "closed",
        model=settings.model,
        model_version=status.gate_version,
        shadow_decisions=gate.decided,
        hits=gate.hits,
        ties=gate.ties,
        voided=status.gate_voided,
        hit_rate=gate.hits / gate.decided if gate.decided else 0.0,
        hit_rate_low=interval.low,
        hit_rate_high=interval.high,
        break_even=gate.break_even or 0.0,
        wealth=gate.wealth,
        opens_at=OPEN_WEALTH,
        words=gate.words(),
    )


def status_to_proto(status: SessionStatus, *, session_id: str = "", expires_in: int = 0) -> status_pb2.Status:
    """Render a session; the id and the idle time left are unknown to the ledger and empty in stored events."""
    totals = status.totals
    decided = totals.wins + totals.losses
    return status_pb2.Status(
        success=True,
        session_id=session_id,
        broker=status.broker,
        account_type=status.account_type,
        connected=status.broker_connection is BrokerConnection.CONNECTED,
        running=status.bot_status is BotStatus.RUNNING,
        status=status.bot_status,
        balance=float(status.balance),
        currency=status.currency,
        profit=float(totals.profit),
        win_rate=totals.wins / decided if decided else 0.0,
        wins=totals.wins,
        losses=totals.losses,
        ties=totals.ties,
        total_trades=totals.total_trades,
        active_trades=status.active_trades,
        asset=status.asset,
        timeframe=status.timeframe,
        model=status.settings.model if status.settings else "",
        limits=_limits(status.settings, status.usage),
        expires_in=expires_in,
        broker_connection=status.broker_connection,
        statistics=_statistics(totals),
        settings=settings_to_proto(status.settings) if status.settings else None,
        open_trades=[trade_to_proto(trade) for trade in status.open_trades],
        seq=status.seq,
        evidence_gate=_evidence_gate(status, status.settings) if status.settings else None,
    )


def candle_to_proto(candle: Candle) -> market_pb2.Candle:
    """Render a candle."""
    return market_pb2.Candle(
        open_time=_timestamp(candle.open_time),
        close_time=_timestamp(candle.close_time),
        open=candle.open,
        high=candle.high,
        low=candle.low,
        close=candle.close,
        volume=candle.volume,
    )


def assets_to_proto(assets: Iterable[Asset]) -> list[market_pb2.Asset]:
    """Render assets, by name."""
    return [
        market_pb2.Asset(
            asset=asset.asset,
            name=asset.name,
            instrument_types=list(asset.instrument_types),
            open=asset.open,
            payout_rate=asset.payout_rate,
            min_amount=float(asset.min_amount),
            max_amount=float(asset.max_amount),
        )
        for asset in sorted(assets, key=lambda asset: asset.asset)
    ]


def model_to_proto(model: ModelVersion) -> model_pb2.Model:
    """Render one version of a model, without its card."""
    return model_pb2.Model(
        model=model.name,
        version=model.version,
        state=model.state,
        pinned=model.pinned,
        is_default=model.is_default,
        sha256=model.sha256,
        features_version=model.features_version,
        min_payout_rate=model.min_payout_rate,
        max_payout_rate=model.max_payout_rate,
        expiry_bars=model.expiry_bars,
        min_history=model.min_history,
        margin=model.margin,
        description=model.description,
        create_time=_timestamp(model.create_time),
    )


def _fill(message: event_pb2.Event, event: Event) -> None:
    match event:
        case StatusUpdate(status):
            message.status_update.CopyFrom(status_to_proto(status))
        case BalanceChanged(balance, currency):
            message.balance.CopyFrom(event_pb2.Balance(balance=float(balance), currency=currency))
        case SignalMade():
            message.signal.CopyFrom(
                event_pb2.Signal(
                    action=event.action,
                    confidence=event.confidence,
                    model=event.model,
                    model_version=event.model_version,
                    asset=event.asset,
                    timeframe=event.timeframe,
                    p_up=event.p_up,
                    break_even=event.break_even,
                    expected_value=event.expected_value,
                    reason=event.reason,
                    candle_time=_timestamp(event.candle_time),
                    shadow_action=event.shadow_action,
                    detail=event.detail,
                )
            )
        case TradeOpened(trade):
            message.trade_opened.CopyFrom(trade_to_proto(trade))
        case TradeClosed(trade):
            message.trade_closed.CopyFrom(trade_to_proto(trade))
        case TradeRejected(trade):
            message.trade_rejected.CopyFrom(trade_to_proto(trade))
        case TradeUnknown(trade):
            message.trade_unknown.CopyFrom(trade_to_proto(trade))
        case LogWritten(level, words):
            message.log.CopyFrom(event_pb2.Log(level=level, message=words))
        case FaultHappened(code, detail):
            message.error.CopyFrom(event_pb2.Fault(code=code, detail=detail))
        case BrokerConnectionChanged(state):
            message.broker_connection.CopyFrom(event_pb2.BrokerConnection(state=state))
        case LimitWasReached(limit, value, used, detail):
            message.limit_reached.CopyFrom(event_pb2.LimitReached(limit=limit, value=value, used=used, detail=detail))
        case SessionWillExpire(expires_in):
            message.session_expiring.CopyFrom(event_pb2.SessionExpiring(expires_in=expires_in))
        case SessionEnded(reason):
            message.session_closed.CopyFrom(event_pb2.SessionClosed(reason=reason))
        case _:
            assert_never(event)


def encode_event(event: Event, seq: int, time: datetime, account_type: AccountType) -> bytes:
    """Serialize an event for the ledger and the streams: everything but the secret session_id."""
    message = event_pb2.Event(seq=seq, time=_timestamp(time), account_type=account_type)
    _fill(message, event)
    return message.SerializeToString()


def encode_candle(
    asset: str, timeframe: int, candle: Candle, *, closed: bool, time: datetime, account_type: AccountType
) -> bytes:
    """Serialize a candle frame, without seq and session_id."""
    return event_pb2.Event(
        time=_timestamp(time),
        account_type=account_type,
        candle=event_pb2.CandleUpdate(asset=asset, timeframe=timeframe, candle=candle_to_proto(candle), closed=closed),
    ).SerializeToString()


def stored_event(payload: bytes, *, session_id: str, expires_in: int) -> session_service_pb2.WatchEventsResponse:
    """Complete a stored event or candle for the session's own stream."""
    message = event_pb2.Event.FromString(payload)
    message.session_id = session_id
    if message.WhichOneof("data") == "status_update":
        message.status_update.session_id = session_id
        message.status_update.expires_in = expires_in
    return session_service_pb2.WatchEventsResponse(event=message)


def snapshot_event(
    status: SessionStatus, *, session_id: str, expires_in: int, time: datetime
) -> session_service_pb2.WatchEventsResponse:
    """Render the whole state, which includes every event up to its seq."""
    return session_service_pb2.WatchEventsResponse(
        event=event_pb2.Event(
            session_id=session_id,
            seq=status.seq,
            time=_timestamp(time),
            account_type=status.account_type,
            snapshot=status_to_proto(status, session_id=session_id, expires_in=expires_in),
        )
    )


def gap_event(
    from_seq: int, to_seq: int, *, session_id: str, account_type: AccountType, time: datetime
) -> session_service_pb2.WatchEventsResponse:
    """Tell of events that the log no longer has."""
    return session_service_pb2.WatchEventsResponse(
        event=event_pb2.Event(
            session_id=session_id,
            time=_timestamp(time),
            account_type=account_type,
            gap=event_pb2.Gap(from_seq=from_seq, to_seq=to_seq),
        )
    )
