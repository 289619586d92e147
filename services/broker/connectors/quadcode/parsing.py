"""From the wire's words to ours: outcomes, money, times, candles, orders, refusals. Pure functions.

Every function raises ``ParseError`` (or one of ``UNREADABLE``) on what it cannot understand, and nothing else.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec

from services.broker.connectors.quadcode.messages import (
    UNREADABLE,
    ActualCommission,
    BalanceEntry,
    CandleMessage,
    OptionClosed,
    Position,
    Refusal,
)
from services.broker.domain.errors import (
    AssetClosedError,
    InsufficientFundsError,
    OrderError,
    OrderRejectedError,
    PayoutChangedError,
    PurchaseWindowClosedError,
)
from services.broker.domain.values import (
    Account,
    AccountType,
    Candle,
    Direction,
    InstrumentType,
    Order,
    OrderState,
    Outcome,
)

BALANCE_TYPES: Final = {AccountType.REAL: 1, AccountType.PRACTICE: 4}
OPTION_TYPE_IDS: Final = {InstrumentType.BINARY: 1, InstrumentType.TURBO: 3, InstrumentType.BLITZ: 12}
WIRE_INSTRUMENTS: Final = {kind: f"{kind.value}-option" for kind in InstrumentType}
INSTRUMENTS: Final = {word: kind for kind, word in WIRE_INSTRUMENTS.items()}
OUTCOMES: Final = {
    "win": Outcome.WON,
    "loose": Outcome.LOST,  # sic
    "equal": Outcome.TIED,
    "sold": Outcome.SOLD,
    "default": Outcome.SOLD,  # digital, closed early
}
MICRO: Final = Decimal("0.000001")
"""The wire's money is exact to this; digits behind it are the noise of a binary float."""
MAX_MONEY: Final = Decimal(10) ** 12
MAX_TIME: Final = 4_102_444_800
"""2100-01-01: a later time is a misread unit."""
TEXT_LIMIT: Final = 200


class ParseError(ValueError):
    """A message is not what the protocol says it is. The text never repeats the message."""


def parse_money(amount: Decimal) -> Decimal:
    """Return an amount of currency units, exact to 1e-6."""
    if not amount.is_finite() or abs(amount) > MAX_MONEY:
        raise ParseError("not an amount of money")
    try:
        return amount.quantize(MICRO).normalize() + Decimal(0)
    except InvalidOperation as error:
        raise ParseError("not an amount of money") from error


def parse_seconds(seconds: float) -> datetime:
    """Return a time given in unix seconds."""
    if not 0 < seconds < MAX_TIME:
        raise ParseError("not a time")
    return datetime.fromtimestamp(seconds, UTC)


def parse_milliseconds(milliseconds: int) -> datetime:
    """Return a time given in unix milliseconds."""
    if not 0 < milliseconds < MAX_TIME * 1000:
        raise ParseError("not a time")
    return parse_seconds(milliseconds / 1000)


def parse_payout(percent: float) -> float:
    """Return a payout rate given as 100 plus the payout in percent; 0 if it is not told."""
    if not 0 <= percent < 100_000:
        raise ParseError("not a payout")
    return max(percent - 100, 0) / 100


def parse_price(price: float | None) -> float:
    """Return a price, 0 if it is not told."""
    if price is None:
        return 0.0
    if not math.isfinite(price):
        raise ParseError("not a price")
    return price


def choose_balance(entries: Sequence[BalanceEntry], account_type: AccountType, user_id: int) -> BalanceEntry | None:
    """Return the user's balance of a type, or None; never one of another type or of another user."""
    wanted = BALANCE_TYPES[account_type]
    return next((e for e in entries if e.type == wanted and e.user_id in (None, user_id)), None)


def parse_candle(message: CandleMessage, timeframe: int, *, closed: bool) -> Candle:
    """Return a candle of ``timeframe`` seconds."""
    prices = (message.open, message.max, message.min, message.close)
    if not all(map(math.isfinite, prices)) or message.min > message.max or not 0 < message.from_ < MAX_TIME:
        raise ParseError("not a candle")
    volume = message.volume if math.isfinite(message.volume) else 0.0
    return Candle(message.from_, message.from_ + timeframe, *prices, volume, closed)


def parse_history(messages: Iterable[CandleMessage], timeframe: int, broker_now: float) -> list[Candle]:
    """Return listed candles, ascending, each once; the last one is forming if its interval is not over."""
    candles: dict[int, Candle] = {}
    for message in messages:
        end = message.from_ + timeframe
        # The broker may answer just before the end and we read just after: then "at" tells.
        closed = message.at >= end * 1_000_000_000 or broker_now >= end + 1
        candles[message.from_] = parse_candle(message, timeframe, closed=closed)
    return [candles[start] for start in sorted(candles)]


def parse_position(position: Position, account: Account, asset: str) -> Order:
    """Return the order that a position stands for, without our id.

    The result comes from the broker's own money (``pnl``) and word (``close_reason``), never from prices.
    """
    instrument_type = INSTRUMENTS.get(position.instrument_type)
    if instrument_type is None:
        raise ParseError("not an option")
    option, digital = position.raw_event.option, position.raw_event.digital
    stake = parse_money(position.invest)
    if option is not None:
        direction, expiry = option.direction, parse_seconds(option.expiration_time)
        payout = parse_payout(option.profit_percent)
    elif digital is not None:
        direction, expiry = digital.instrument_dir, parse_milliseconds(digital.instrument_expiration)
        payout = 0.0
        if position.expected_profit is not None and stake > 0:
            payout = max(round(float(parse_money(position.expected_profit) / stake) - 1, 4), 0.0)
    else:
        raise ParseError("no product in the position")
    opened = option.open_time_millisecond if option is not None else 0
    try:
        parsed_direction = Direction(direction)
    except ValueError as error:
        raise ParseError("no direction in the position") from error
    order = Order(
        client_order_id="",
        broker_order_id=str(position.external_id),
        state=OrderState.OPEN,
        account_type=account.account_type,
        balance_id=position.user_balance_id,
        asset=asset,
        instrument_type=instrument_type,
        direction=parsed_direction,
        amount=stake,
        payout_rate=payout,
        open_price=parse_price(position.open_quote),
        open_time=parse_milliseconds(position.open_time or opened),
        expiry_time=expiry,
    )
    if position.status == "open":
        return order
    if position.status != "closed":
        raise ParseError("unknown state of a position")
    profit = _profit(position, stake)
    return replace(
        order,
        state=OrderState.CLOSED,
        outcome=_outcome(position.close_reason, profit),
        profit=profit,
        close_price=parse_price(position.close_quote),
        close_time=expiry if position.close_time is None else parse_milliseconds(position.close_time),
    )


def parse_option_closed(message: OptionClosed) -> tuple[Outcome, Decimal]:
    """Return outcome and net profit as the trading engine's own event tells them."""
    outcome = OUTCOMES.get(message.result)
    if outcome is None:
        raise ParseError("unknown result")
    return outcome, parse_money(message.profit_amount) - parse_money(message.amount)


def _profit(position: Position, stake: Decimal) -> Decimal:
    if position.pnl is not None:
        return parse_money(position.pnl)
    if position.close_profit is not None:
        return parse_money(position.close_profit) - stake
    raise ParseError("a closed position without a result")


def _outcome(reason: str | None, profit: Decimal) -> Outcome:
    known = OUTCOMES.get(reason or "")
    if known is not None:
        return known
    # "expired" of a digital option, and any word that we do not know: the broker's money speaks.
    if profit > 0:
        return Outcome.WON
    return Outcome.LOST if profit < 0 else Outcome.TIED


_refusal: Final = msgspec.json.Decoder(Refusal)
_fields: Final = msgspec.json.Decoder(dict[str, str | list[str]])


def refusal_text(msg: msgspec.Raw) -> str:
    """Return the broker's words of a refusal; empty if there are none."""
    try:
        text = _refusal.decode(msg).message
    except UNREADABLE:
        text = ""
    if not text:
        try:
            fields = _fields.decode(msg)
        except UNREADABLE:
            return ""
        text = "; ".join(t if isinstance(t, str) else ", ".join(t) for t in fields.values())
    return text[:TEXT_LIMIT]


def actual_commission(msg: msgspec.Raw) -> ActualCommission | None:
    """Return what the payout became, if a refusal says it."""
    try:
        result = _refusal.decode(msg).result
    except UNREADABLE:
        return None
    return None if result is None else result.actual_commission


def order_refusal(status: int, msg: msgspec.Raw, asset: str) -> OrderError | None:
    """Return what a refused order failed with, or None if the refusal does not prove that nothing was booked.

    Numbers differ between sources and several were never seen (the vendor's clients classify by text), so the text
    decides first. A status of 5000 or more may be a fault behind a booked order, and so may any that speaks of a time-out:
    of those only the two are taken for proof that were seen to refuse a digital instrument.
    """
    text = refusal_text(msg).lower()
    if "invalid instrument" in text or "request quote from a cache" in text:
        # Digital: the instrument's expiry is no longer (or not yet) on offer.
        return PurchaseWindowClosedError()
    if status >= 5000 or "timeout" in text or "timed out" in text:
        return None
    if status == 4117 or "profit rate change" in text:
        told = actual_commission(msg)
        if told is None or told.commission is None or not 0 <= told.commission <= 100:
            return PayoutChangedError(None)
        return PayoutChangedError((100 - told.commission) / 100)
    if status == 4112 or any(words in text for words in ("insufficient funds", "not enough money", "no_money")):
        return InsufficientFundsError()
    if status == 4104 or "purchasing options is over" in text:
        return PurchaseWindowClosedError()
    if status in (4103, 4119) or any(words in text for words in ("not available", "active is suspended")):
        return AssetClosedError(asset)
    return OrderRejectedError(refusal_text(msg) or f"status {status}")
