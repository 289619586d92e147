"""Top-level messages of the oldest clients, from before ``sendMessage``."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from simulator.exchange.exchange import NewOrder
from simulator.exchange.orders import OrderStatus
from simulator.exchange.refusals import Refusal
from simulator.market.assets import TERMS, OptionKind
from simulator.market.prices import Candle
from simulator.wire import events, frames
from simulator.wire.account import api_result, select_balance
from simulator.wire.bodies import BuyV2, ChangeBalance, GetOptions, OldCandles, SetActives, moment, read_id
from simulator.wire.hub import CHART
from simulator.wire.portfolio import options_of
from simulator.wire.quotes import MOST_CANDLES, ask_and_bid
from simulator.wire.requests import BAD_REQUEST, Reply, Request
from simulator.wire.trading import intervention_for, read_direction

TopLevel = Callable[[Request], Reply | None]


def option_init_all(request: Request) -> Reply:
    """``api_option_init_all``."""
    data = request.platform.initialization_data.get(request.now)
    return Reply("api_option_init_all_result", api_result(data), status=None)


def game_betinfo(request: Request) -> Reply:
    """``api_game_betinfo``: what became of the options named by the keys ``id[0]``, ``id[1]`` and so on."""
    bets: dict[str, Any] = {}
    for key, value in frames.decode_object(request.message.body).items():
        option_id = read_id(value) if key.startswith("id") else None
        order = None if option_id is None else request.platform.exchange.find(request.account.user_id, option_id)
        if order is None:
            continue
        closed = order.status is OrderStatus.CLOSED
        bets[str(order.order_id)] = {
            "id": order.order_id,
            "win": order.outcome.broker_word if order.outcome is not None else "",
            "profit": order.credit if closed else 0,
            "deposit": order.amount,
            "game_state": int(closed),
            "active_id": order.active_id,
            "active": order.asset,
            "created": int(order.booked or 0),
            "expired": order.expiry,
        }
    return Reply("api_game_betinfo_result", api_result({"data": bets}), status=None)


def game_getoptions(request: Request) -> Reply:
    """``api_game_getoptions``."""
    options = options_of(request.platform, request.account.user_id, request.body(GetOptions))
    return Reply("api_game_getoptions_result", api_result(options), status=None)


def profile_changebalance(request: Request) -> Reply:
    """``api_profile_changebalance``."""
    chosen = select_balance(request.account, request.body(ChangeBalance).balance_id)
    msg = api_result({}) if chosen else {"isSuccessful": False, "message": ["Balance not found."], "result": {}}
    return Reply("api_profile_changebalance_result", msg, status=None)


def candles(request: Request) -> Reply:
    """``candles``: rows of [from, open, close, high, low], prices in millionths, the current one last."""
    body = request.body(OldCandles)
    listing = request.platform.listings.get(body.active_id)
    now = int(request.now)
    # Old clients may ask for sizes off today's list; anything that divides a day can be made.
    if listing is None or body.duration < 1 or 86_400 % body.duration:
        return Reply("candles", {"data": [], "message": "invalid request"}, BAD_REQUEST)
    till = min(int(moment(body.till)) or now, now)
    start = int(moment(body.from_)) or till - body.chunk_size * body.duration
    last = till // body.duration
    first = max(start // body.duration, last - MOST_CANDLES + 1)
    found = listing.history.candles(body.duration, first, last, now)
    return Reply("candles", {"data": [_row(candle) for candle in found]}, status=None)


def _row(candle: Candle) -> list[int]:
    return [candle.start, candle.open, candle.close, candle.high, candle.low]


def order_from(request: Request) -> NewOrder:
    """Read ``buyV2``: booked on the current balance; the expiry need not be a whole minute and is moved to the grid."""
    body = request.body(BuyV2)
    kind = OptionKind(body.type) if body.type in (OptionKind.TURBO, OptionKind.BINARY) else None
    expiry = int(moment(body.exp))
    if kind is not None:
        step, deadtime = TERMS[kind].expirations[0], TERMS[kind].deadtime
        earliest = request.now + deadtime
        expiry = max(round(expiry / step), int(earliest // step) + 1) * step
    return NewOrder(
        account=request.account,
        request_id=request.request_id,
        received=request.received,
        balance_id=request.account.current_balance_id,
        kind=kind,
        direction=read_direction(body.direction),
        amount=body.price,
        active_id=body.act,
        expiry=expiry,
    )


def buy_v2(request: Request) -> Reply:
    """``buyV2``."""
    platform, new = request.platform, order_from(request)
    try:
        order = platform.exchange.place(new, intervention_for(platform, new, request.message.method))
    except Refusal as refusal:
        msg = {"isSuccessful": False, "message": [refusal.text], "result": refusal.result or {}}
        return Reply("buyComplete", msg, status=None)
    return Reply("buyComplete", api_result(events.option_reply(order)), None, lambda: platform.exchange.announce(order))


def set_actives(request: Request) -> None:
    """``setActives``: chart data of these assets, and of no others, from now on."""
    wanted = request.body(SetActives).actives
    ids = {wanted} if isinstance(wanted, int) else set(wanted)
    known = {listing.asset.active_id for listing in request.platform.listings.all()}
    request.platform.hub.listen_only(request.connection, CHART, ids & known)


def chart_data(active_id: int, ticker: str, price: int, second: int) -> dict[str, Any]:
    """Shape ``newChartData``."""
    ask, bid = ask_and_bid(price)
    value = events.price(price)
    return {
        "active_id": active_id,
        "symbol": ticker,
        "bid": bid,
        "ask": ask,
        "value": value,
        "time": second,
        "show_value": value,
        "buy": ask,
        "sell": bid,
    }


def ignored(_request: Request) -> None:
    """``subscribe``, ``unSubscribe`` and the like: taken note of by nobody."""


TOP_LEVEL: Final[Mapping[str, TopLevel]] = {
    "api_option_init_all": option_init_all,
    "api_game_betinfo": game_betinfo,
    "api_game_getoptions": game_getoptions,
    "api_profile_changebalance": profile_changebalance,
    "candles": candles,
    "buyV2": buy_v2,
    "setActives": set_actives,
    "subscribe": ignored,
    "unSubscribe": ignored,
}
