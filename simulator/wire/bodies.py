"""Bodies of requests as typed structs. Unknown keys are ignored; numbers may come as text, as Python clients send them."""

from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec

_any: Final = msgspec.json.Decoder(float_hook=Decimal)

BodyT = TypeVar("BodyT", bound=msgspec.Struct)


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
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
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

    types_ids: list[int] | None = None


class WithBalance(msgspec.Struct):
    """``reset-training-balance``, ``change-balance``."""

    user_balance_id: int | None = None
    balance_id: int | None = None
    amount: Decimal = Decimal(10_000)


class WithAsset(msgspec.Struct):
    """``get-active``, ``get-traders-mood`` and what else names one asset."""

    active_id: int | None = None
    asset_id: int | None = None
    id: int | None = None
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
    asset_id: int | None = None
    filter_suspended: bool = False


class GetCandles(msgspec.Struct, rename={"from_": "from"}):
    """``get-candles``: by end and count, by times, or by numbers."""

    active_id: int
    size: int
    to: Decimal | None = None
    count: int | None = None
    from_: Decimal | None = None
    from_id: int | None = None
    to_id: int | None = None
    only_closed: bool = False


class OpenOption(msgspec.Struct):
    """``binary-options.open-option``."""

    user_balance_id: int
    active_id: int
    option_type_id: int
    direction: str
    price: Decimal
    expired: Decimal = Decimal(0)
    profit_percent: int | None = None
    expiration_size: int | None = None


class PlaceDigital(msgspec.Struct):
    """``digital-options.place-digital-option``; the amount comes as text."""

    user_balance_id: int
    instrument_id: str
    amount: Decimal


class SellOptions(msgspec.Struct):
    """``sell-options``."""

    options_ids: list[int] | int


class WithPosition(msgspec.Struct):
    """``close-position``, ``close-position-batch``, ``get-position``."""

    position_id: int | str | None = None
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

    order_id: int


class GetPositions(msgspec.Struct):
    """``get-positions`` and ``get-history-positions``."""

    instrument_type: str | None = None
    instrument_types: list[str] | None = None
    user_balance_id: int | None = None
    external_id: int | None = None
    limit: int = 30
    offset: int = 0
    start: Decimal | None = None
    end: Decimal | None = None


class GetOptions(msgspec.Struct):
    """``get-options``: kinds of option in one comma-separated text."""

    limit: int = 30
    instrument_type: str | None = None
    user_balance_id: int | None = None


class SubscribePositions(msgspec.Struct):
    """``portfolio.subscribe-positions``."""

    ids: list[str] = []


class StrikeList(msgspec.Struct):
    """``get-strike-list``."""

    underlying: str
    expiration: Decimal
    period: int


class BuyV2(msgspec.Struct):
    """``buyV2`` of the oldest clients, which know no balance ids."""

    price: Decimal
    act: int
    exp: Decimal
    type: str
    direction: str


class OldCandles(msgspec.Struct, rename={"from_": "from"}):
    """``candles`` of the oldest clients."""

    active_id: int
    duration: int
    from_: Decimal = Decimal(0)
    till: Decimal = Decimal(0)
    chunk_size: int = 25


class SetActives(msgspec.Struct):
    """``setActives``."""

    actives: list[int] | int


class ChangeBalance(msgspec.Struct):
    """``api_profile_changebalance``."""

    balance_id: int
