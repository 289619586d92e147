"""The platform's messages as typed structs, only the fields that we use. Field names are the wire's.

Unknown fields are skipped unread, so a frame costs what we need of it. Everything optional on the wire has a default
here that means "not told". Facts: docs and captured traffic of several clients; marks in comments say what is a guess.
"""

from decimal import Decimal
from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a message may raise. Bytes that are not UTF-8 are found out only where they are read."""


class Envelope(msgspec.Struct, gc=False):
    """Any frame from the broker; ``msg`` stays unread until somebody wants it."""

    name: str
    request_id: str | int | None = None
    service: str | None = msgspec.field(default=None, name="microserviceName")
    status: int | None = None
    msg: msgspec.Raw = msgspec.Raw(b"null")


class ResultMessage(msgspec.Struct):
    """``result``: the acknowledgement of a request."""

    success: bool = True
    reason: str = ""


class LoginReply(msgspec.Struct):
    """The body of an answer to login or second factor, good or bad."""

    code: str = ""
    message: str = ""
    ssid: str | None = None
    token: str | None = None
    user_id: int | None = None
    ttl: int | None = None
    method: str | None = None
    available_methods: list[str] = []


class Profile(msgspec.Struct):
    """Who is logged in."""

    user_id: int
    email: str = ""
    group_id: int = 0


class ProfileReply(msgspec.Struct):
    """``profile``, the answer to core.get-profile."""

    result: Profile


class BalanceEntry(msgspec.Struct):
    """One balance in ``balances``. Types: 1 real, 4 practice; others are not ours."""

    id: int
    type: int
    amount: Decimal
    user_id: int | None = None
    currency: str = ""


class ChangedBalance(msgspec.Struct):
    """The inner part of ``balance-changed``."""

    id: int
    amount: Decimal


class BalanceChanged(msgspec.Struct):
    """``balance-changed``."""

    user_id: int
    current_balance: ChangedBalance


class ProfitTerms(msgspec.Struct):
    """Payout in percent is 100 minus the commission."""

    commission: int | float = 100


class OptionTerms(msgspec.Struct):
    """What is on offer on one asset."""

    profit: ProfitTerms = msgspec.field(default_factory=ProfitTerms)
    expiration_times: list[int] = []
    count: int = 1


class Active(msgspec.Struct):
    """One asset for one kind of option in ``initialization-data``."""

    id: int
    name: str
    description: str = ""
    enabled: bool = True
    is_suspended: bool = False
    minimal_bet: Decimal = Decimal(1)
    maximal_bet: Decimal = Decimal(20_000)
    deadtime: int = 0
    is_buyback: bool | int = False
    buyback_deadtime: int = 0
    schedule: list[tuple[int, int]] = []
    option: OptionTerms = msgspec.field(default_factory=OptionTerms)


class KindTable(msgspec.Struct):
    """The assets of one kind of option; each is read by itself so that a broken one spoils no other."""

    actives: dict[str, msgspec.Raw] = {}


class InitializationData(msgspec.Struct):
    """``initialization-data``, several MB."""

    turbo: KindTable = msgspec.field(default_factory=KindTable)
    binary: KindTable = msgspec.field(default_factory=KindTable)
    blitz: KindTable = msgspec.field(default_factory=KindTable)


class UnderlyingSchedule(msgspec.Struct):
    """One opening time of a digital underlying, unix seconds."""

    open: int
    close: int


class Underlying(msgspec.Struct):
    """One asset of ``underlying-list``."""

    active_id: int
    name: str = ""
    underlying: str = ""
    localization_key: str = ""
    is_enabled: bool = True
    is_suspended: bool = False
    schedule: list[UnderlyingSchedule] = []


class UnderlyingList(msgspec.Struct):
    """``underlying-list``: the digital options' assets."""

    underlying: list[msgspec.Raw] = []


class CommissionValue(msgspec.Struct):
    """100 minus the payout in percent."""

    value: int | float


class CommissionChanged(msgspec.Struct):
    """``commission-changed``: a payout moved."""

    instrument_type: str
    active_id: int
    commission: CommissionValue


class CandleMessage(msgspec.Struct, gc=False):
    """A candle, pushed (``candle-generated``) or listed (``candles``). ``at`` in ns, ``from`` and ``to`` in s."""

    from_: int = msgspec.field(name="from")
    open: float
    close: float
    min: float
    max: float
    to: int = 0
    id: int = 0
    at: int = 0
    volume: float = 0.0
    active_id: int = 0
    size: int = 0


class CandlesReply(msgspec.Struct):
    """``candles``."""

    candles: list[CandleMessage]


class OptionReply(msgspec.Struct):
    """``option``: an order of kind turbo, binary or blitz was booked. ``exp`` in s, ``created_millisecond`` in ms."""

    id: int
    exp: int
    created: int = 0
    created_millisecond: int = 0
    value: float = 0.0
    profit_income: int | float = 0


class DigitalPlaced(msgspec.Struct):
    """``digital-option-placed``: the id of the order, not of the position."""

    id: int


class ActualCommission(msgspec.Struct):
    """What the payout became, with status 4117."""

    active_id: int = 0
    commission: int | float | None = None


class RefusalResult(msgspec.Struct):
    """Facts beside a refusal."""

    actual_commission: ActualCommission | None = None


class Refusal(msgspec.Struct):
    """``msg`` of a reply with status ≥ 4000."""

    message: str = ""
    result: RefusalResult | None = None


class RawOption(msgspec.Struct):
    """``binary_options_option_changed1`` in a position. Times in s."""

    direction: str = ""
    expiration_time: int = 0
    profit_percent: int | float = 0
    option_type_id: int = 0
    open_time_millisecond: int = 0


class RawDigital(msgspec.Struct):
    """``digital_options_position_changed1`` in a position. ``instrument_expiration`` in ms."""

    order_ids: list[int] = []
    instrument_dir: str = ""
    instrument_expiration: int = 0


class RawEvent(msgspec.Struct):
    """The product's own part of a position, nested as in versions 3.0 (push) and 4.0, 2.0 (lists)."""

    option: RawOption | None = msgspec.field(default=None, name="binary_options_option_changed1")
    digital: RawDigital | None = msgspec.field(default=None, name="digital_options_position_changed1")


class Position(msgspec.Struct):
    """``position-changed`` and the entries of ``positions`` and ``history-positions``. Root times in ms."""

    external_id: int
    user_id: int
    user_balance_id: int
    active_id: int
    instrument_type: str
    status: str
    version: int = 0
    invest: Decimal = Decimal(0)
    open_time: int = 0
    open_quote: float | None = None
    close_quote: float | None = None
    close_reason: str | None = None
    close_time: int | None = None
    close_profit: Decimal | None = None
    pnl: Decimal | None = None
    expected_profit: Decimal | None = None
    raw_event: RawEvent = msgspec.field(default_factory=RawEvent)


class PositionsReply(msgspec.Struct):
    """``positions`` and ``history-positions``; entries are read one by one."""

    positions: list[msgspec.Raw]
    limit: int = 0
    total: int | None = None


class OptionClosed(msgspec.Struct):
    """``option-closed``: how the trading engine itself saw the end; ``profit_amount`` is the gross credit."""

    option_id: int
    balance_id: int
    result: str
    amount: Decimal
    profit_amount: Decimal


class RawOrderEvent(msgspec.Struct):
    """The digital part of ``order-changed``."""

    id: int


class OrderEvents(msgspec.Struct):
    """Which product the order is of."""

    digital: RawOrderEvent | None = msgspec.field(default=None, name="digital_options_order_changed1")


class OrderChanged(msgspec.Struct):
    """``order-changed``: what became of a digital order; ``rejected`` is how lack of funds is told."""

    status: str
    raw_event: OrderEvents = msgspec.field(default_factory=OrderEvents)


class DigitalChoice(msgspec.Struct):
    """One side of a digital instrument."""

    symbol: str
    direction: str
    strike: str = ""


class DigitalInstrument(msgspec.Struct):
    """One expiry of a digital option. ``expiration`` and ``period`` in s."""

    index: int
    expiration: int
    period: int
    data: list[DigitalChoice]
    deadtime: int = 30
    buyback_deadtime: int = 0


class InstrumentsReply(msgspec.Struct):
    """``instruments`` of digital options."""

    instruments: list[DigitalInstrument]


class DigitalPrice(msgspec.Struct):
    """What one contract that pays 100 costs."""

    ask: float | None = None


class DigitalPriceLevel(msgspec.Struct):
    """Prices at one strike; ``SPT`` is at the money."""

    strike: str
    call: DigitalPrice = msgspec.field(default_factory=DigitalPrice)
    put: DigitalPrice = msgspec.field(default_factory=DigitalPrice)


class DigitalPrices(msgspec.Struct):
    """``digital-option-client-price-generated``."""

    instrument_index: int
    prices: list[DigitalPriceLevel] = []
