"""A session's trades as a CSV file that a spreadsheet opens without executing anything in it."""

import csv
import io
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from services.session.domain.trade import Trade

_COLUMNS: Final = (
    "trade_id",
    "client_request_id",
    "status",
    "broker",
    "account_type",
    "source",
    "asset",
    "instrument_type",
    "direction",
    "amount",
    "currency",
    "duration_seconds",
    "payout_rate",
    "entry_price",
    "close_price",
    "profit",
    "create_time",
    "open_time",
    "expiry_time",
    "close_time",
    "model",
    "model_version",
    "reason",
    "broker_order_id",
)
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


def _text(value: str) -> str:
    """Keep a spreadsheet from reading words as a formula (OWASP, "CSV Injection")."""
    return f"'{value}" if value.startswith(_FORMULA_STARTS) else value


def _time(value: datetime | None) -> str:
    return "" if value is None else value.isoformat().replace("+00:00", "Z")


def trades_to_csv(trades: Iterable[Trade]) -> bytes:
    """Render trades as UTF-8 CSV (RFC 4180) with a header line."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for trade in trades:
        writer.writerow(
            (
                trade.trade_id,
                _text(trade.client_request_id),
                trade.state.status,
                trade.broker,
                trade.account_type,
                trade.source,
                _text(trade.asset),
                trade.instrument_type,
                trade.direction,
                trade.amount,
                _text(trade.currency),
                int(trade.duration.total_seconds()),
                trade.payout_rate,
                trade.entry_price,
                trade.close_price,
                trade.profit,
                _time(trade.create_time),
                _time(trade.open_time),
                _time(trade.expiry_time),
                _time(trade.close_time),
                _text(trade.model),
                _text(trade.model_version),
                trade.reason,
                _text(trade.broker_order_id),
            )
        )
    return text.getvalue().encode()
