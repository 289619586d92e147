"""Rows of the ledger's tables as the domain's values."""

import json
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from services.session.adapters.ledger.database import Row
from services.session.domain.bot import BotSettings, Usage
from services.session.domain.events import SessionStatus, StoredEvent, Totals
from services.session.domain.evidence import Gate, GateMode, default_gate_mode
from services.session.domain.shadow import GateKey, GateRecord
from services.session.domain.tally import Tally
from services.session.domain.trade import Trade, TradeState
from services.session.domain.values import (
    Account,
    AccountType,
    BotStatus,
    Broker,
    BrokerConnection,
    CloseReason,
    Direction,
    InstrumentType,
    SessionKey,
    SessionState,
    TradeId,
    TradeSource,
)
from services.session.ports import SessionRecord

_MONEY = ("amount", "stop_loss", "take_profit", "daily_loss_limit")


def settings_to_json(settings: BotSettings) -> str:
    """Write settings for the jsonb column; money as strings, so that it stays exact."""
    values: dict[str, Any] = {name: getattr(settings, name) for name in BotSettings.__dataclass_fields__}
    values["duration"] = settings.duration // timedelta(seconds=1)
    for name in _MONEY:
        values[name] = None if values[name] is None else str(values[name])
    return json.dumps(values)


def settings_from_json(text: str, account_type: AccountType) -> BotSettings:
    """Read what ``settings_to_json`` wrote; a bot from before there were gates gets the one of its account type."""
    values: dict[str, Any] = json.loads(text)
    gate = values.get("gate", default_gate_mode(account_type))
    values["gate"] = None if gate is None else GateMode(gate)
    values["duration"] = timedelta(seconds=values["duration"])
    values["instrument_type"] = InstrumentType(values["instrument_type"])
    for name in _MONEY:
        values[name] = None if values[name] is None else Decimal(values[name])
    return BotSettings(**values)


def session_from_row(row: Row) -> SessionRecord:
    """Read a row of ``sessions``."""
    account_type = AccountType(row["account_type"])
    return SessionRecord(
        session_key=SessionKey(row["session_key"]),
        state=SessionState(row["state"]),
        broker=Broker(row["broker"]),
        account=Account(row["user_id"], row["balance_id"], account_type, row["balance"], row["currency"]),
        bot_status=BotStatus(row["bot_status"]),
        settings=None if row["settings"] is None else settings_from_json(row["settings"], account_type),
        run_id=row["run_id"],
        asset=row["asset"],
        timeframe=row["timeframe"],
        epoch=row["epoch"],
        last_seen=row["last_seen"],
        last_seq=row["last_seq"],
        close_reason=None if row["close_reason"] is None else CloseReason(row["close_reason"]),
        expiry_warned=row["expiry_warned"],
        broker_connection=BrokerConnection(row["broker_connection"]),
    )


def tally_from_row(row: Row, today: date) -> Tally:
    """Read the counters of a row of ``sessions``; the daily profit begins anew with the UTC day."""
    # Another replica's clock may be a little ahead of ours: its "tomorrow" counts already.
    day: date = max(row["day"], today)
    return Tally(
        usage=Usage(
            run_trades=row["run_trades"],
            run_profit=row["run_profit"],
            run_exposure=row["run_exposure"],
            daily_profit=row["daily_profit"] if row["day"] == day else Decimal(0),
            exposure=row["exposure"],
            open_trades=row["open_trades"],
            consecutive_losses=row["consecutive_losses"],
        ),
        totals=Totals(
            wins=row["wins"],
            losses=row["losses"],
            ties=row["ties"],
            sold=row["sold"],
            total_trades=row["total_trades"],
            profit=row["profit"],
            staked=row["staked"],
            payout_sum=row["payout_sum"],
        ),
        day=day,
    )


def gate_key_from_row(row: Row) -> GateKey:
    """Read whose evidence a row of ``gates`` or ``shadow_decisions`` is."""
    return GateKey(
        row["model"], row["model_version"], row["asset"], row["timeframe"], timedelta(seconds=row["duration"])
    )


def gate_from_row(row: Row) -> GateRecord:
    """Read a row of ``gates``."""
    gate = Gate(
        hits=row["hits"],
        decided=row["decided"],
        ties=row["ties"],
        payout_sum=row["payout_sum"],
        wealth=row["wealth"],
        opened=row["opened"],
    )
    return GateRecord(gate_key_from_row(row), gate, row["voided"])


def status_of(
    record: SessionRecord, tally: Tally, open_trades: tuple[Trade, ...], gate: GateRecord | None
) -> SessionStatus:
    """Put a session together as its user sees it. ``gate`` is the one in use, None before the model's first answer."""
    return SessionStatus(
        broker=record.broker,
        account_type=record.account.account_type,
        bot_status=record.bot_status,
        balance=record.account.balance,
        currency=record.account.currency,
        asset=record.asset,
        timeframe=record.timeframe,
        settings=record.settings,
        usage=tally.usage,
        totals=tally.totals,
        broker_connection=record.broker_connection,
        last_seen=record.last_seen,
        seq=record.last_seq,
        open_trades=open_trades,
        active_trades=len(open_trades),
        gate=Gate() if gate is None else gate.gate,
        gate_voided=0 if gate is None else gate.voided,
        gate_version="" if gate is None else gate.key.model_version,
    )


def trade_from_row(row: Row) -> Trade:
    """Read a row of ``trades``."""
    source = TradeSource(row["source"])
    return Trade(
        trade_id=TradeId(row["trade_id"]),
        session_key=SessionKey(row["session_key"]),
        state=TradeState(row["state"]),
        source=source,
        client_request_id=(row["idempotency_key"] or "") if source is TradeSource.MANUAL else "",
        broker=Broker(row["broker"]),
        account_type=AccountType(row["account_type"]),
        balance_id=row["balance_id"],
        asset=row["asset"],
        instrument_type=InstrumentType(row["instrument_type"]),
        direction=Direction(row["direction"]),
        amount=row["amount"],
        currency=row["currency"],
        duration=timedelta(seconds=row["duration"]),
        create_time=row["create_time"],
        min_payout=row["min_payout"],
        send_time=row["send_time"],
        send_before=row["send_before"],
        payout_rate=row["payout_rate"],
        entry_price=row["entry_price"],
        close_price=row["close_price"],
        profit=row["profit"],
        open_time=row["open_time"],
        expiry_time=row["expiry_time"],
        close_time=row["close_time"],
        broker_order_id=row["broker_order_id"] or "",
        model=row["model"],
        model_version=row["model_version"],
        model_sha256=row["model_sha256"],
        reason=row["reason"],
        ambiguous=row["ambiguous"],
    )


def event_from_row(row: Row) -> StoredEvent:
    """Read a row of ``events``."""
    return StoredEvent(seq=row["seq"], type=row["type"], payload=bytes(row["payload"]))
