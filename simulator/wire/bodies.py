"""Bodies of requests as typed structs. Unknown keys are ignored; numbers may come as text, as Python clients send them."""

from decimal import Decimal
from typing import Annotated, Any, Final, TypeVar

import msgspec

_any: Final = msgspec.json.Decoder(float_hook=Decimal)

BodyT = TypeVar("BodyT", bound=msgspec.Struct)

Id = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""An id or a number of things; nothing larger is taken, so nothing larger has to be stored."""

LAST_MOMENT: Final = Decimal(10) ** 15
"""Far beyond any time in seconds or milliseconds, yet small enough to calculate with."""


def moment(value: Decimal) -> Decimal:
    """Return a time as given, or the end of time in its direction if it is absurd."""
    return max(-LAST_MOMENT, min(LAST_MOMENT, value)) if value.is_finite() else LAST_MOMENT


def read_id(value: object) -> int | None:
    """Return an id that may be written as text; None if it is none."""
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None


class BadBodyError(Exception):
    """A body lacks a field or has one of the wrong type; the message may be shown to the client."""


def read_body(raw: msgspec.Raw, body_type: type[BodyT]) -> BodyT:
    """Read a body.

    Raises:
        BadBodyError: It is not of that shape.
    """
    try:
        # Floats become Decimal on the way, so that a stake is exactly what the client wrote.
        value = _any.decode(raw)
        return msgspec.convert({} if value in (None, "") else value, body_type, strict=False)
    except (msgspec.DecodeError, RecursionError, ArithmeticError) as error:
        raise BadBodyError(str(error)) from error


class Nothing(msgspec.Struct):
    """A request without a body, or with one that does not matter."""


class Authenticate(msgspec.Struct):
    """``authenticate``."""

    ssid: str


class Params(msgspec.Struct, rename="camel"):
    """``params`` of a subscription."""

    routing_filters: dict[str, Any] | None = None


class WithBalanceTypes(msgspec.Struct):
    """``get-balances``."""

    types_ids: list[Id] | None = None


class WithBalance(msgspec.Struct):
    """``reset-training-balance``, ``change-balance``."""

    user_balance_id: Id | None = None
    balance_id: Id | None = None
    amount: Decimal = Decimal(10_000)


class WithAsset(msgspec.Struct):
    """``get-active``, ``get-traders-mood`` and what else names one asset."""

    active_id: Id | None = None
    asset_id: Id | None = None
    id: Id | None = None
    instrument: str | None = None
    instrument_type: str | None = None

    @property
    def asset(self) -> int:
        """The asset, whatever the key is called; 0 if there is none."""
        return self.active_id or self.asset_id or self.id or 0


class WithType(msgspec.Struct):
    """``get-underlying-list``, ``get-instruments``."""

    type: str | None = None
    instrument_type: str | None = None
    asset_id: Id | None = None
    filter_suspended: bool = False


class GetCandles(msgspec.Struct, rename={"from_": "from"}):
    """``get-candles``: by end and count, by times, or by numbers."""

    active_id: Id
    size: Id
    to: Decimal | None = None
    count: Id | None = None
    from_: Decimal | None = None
    from_id: Id | None = None
    to_id: Id | None = None
    only_closed: bool = False


class OpenOption(msgspec.Struct):
    """``binary-options.open-option``."""

    user_balance_id: Id
    active_id: Id
    option_type_id: Id
    direction: str
    price: Decimal
    expired: Decimal = Decimal(0)
    profit_percent: Id | None = None
    expiration_size: Id | None = None


class PlaceDigital(msgspec.Struct):
    """``digital-options.place-digital-option``; the amount comes as text."""

    user_balance_id: Id
    instrument_id: str
    amount: Decimal


class SellOptions(msgspec.Struct):
    """``sell-options``."""

    options_ids: list[Id] | Id


class WithPosition(msgspec.Struct):
    """``close-position``, ``close-position-batch``, ``get-position``."""

    position_id: Id | str | None = None
    position_ids: list[int | str | list[int | str]] | None = None
    """One of the clients wraps its list in another."""

    @property
    def wanted(self) -> list[int | str | None]:
        """All positions that are meant."""
        if self.position_ids is None:
            return [self.position_id]
        return [one for item in self.position_ids for one in (item if isinstance(item, list) else [item])]


class WithOrder(msgspec.Struct):
    """``get-order``."""

    order_id: Id


class GetPositions(msgspec.Struct):
    """``get-positions`` and ``get-history-positions``."""

    instrument_type: str | None = None
    instrument_types: list[str] | None = None
    user_balance_id: Id | None = None
    external_id: Id | None = None
    limit: Id = 30
    offset: Id = 0
    start: Decimal | None = None
    end: Decimal | None = None


class GetOptions(msgspec.Struct):
    """``get-options``: kinds of option in one comma-separated text."""

    limit: Id = 30
    instrument_type: str | None = None
    user_balance_id: Id | None = None


class SubscribePositions(msgspec.Struct):
    """``portfolio.subscribe-positions``."""

    ids: list[str] = []


class StrikeList(msgspec.Struct):
    """``get-strike-list``."""

    underlying: str
    expiration: Decimal
    period: Id


class BuyV2(msgspec.Struct):
    """``buyV2`` of the oldest clients, which know no balance ids."""

    price: Decimal
    act: Id
    exp: Decimal
    type: str
    direction: str


class OldCandles(msgspec.Struct, rename={"from_": "from"}):
    """``candles`` of the oldest clients."""

    active_id: Id
    duration: Id
    from_: Decimal = Decimal(0)
    till: Decimal = Decimal(0)
    chunk_size: Id = 25


class SetActives(msgspec.Struct):
    """``setActives``."""

    actives: list[Id] | Id


class ChangeBalance(msgspec.Struct):
    """``api_profile_changebalance``."""

    balance_id: Id
