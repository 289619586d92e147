"""One session's orders as the broker booked them, known by their stakes, held against its trades and its limits."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from decimal import Decimal
from itertools import accumulate
from typing import Any

from local.witness import cents
from services.session.domain.trade import SETTLED, Trade
from tests.faults.programme.users import BOT_STAKE, User
from tests.faults.programme.world import MAX_OPEN_TRADES


def by_marks(user: User, mine: Sequence[Trade], booked: Sequence[dict[str, Any]]) -> list[str]:
    """Compare by stake what the broker booked with what became of the trade that was asked for."""
    found = []
    numbers: dict[Decimal, list[str]] = defaultdict(list)
    for order in booked:
        numbers[cents(order["amount"])].append(str(order["broker_order_id"]))
    by_key = {trade.client_request_id: trade for trade in mine if trade.client_request_id}
    for key, stake in user.asked.items():
        at_broker, trade = numbers[stake], by_key.get(key)
        if len(at_broker) > 1:
            found.append(f"{key} was placed {len(at_broker)} times")
        if trade is None:
            if at_broker:
                found.append(f"{key} is at the broker and in no ledger")
            if key in user.answered:
                found.append(f"{key} was answered as trade {user.answered[key]}, which is in no ledger")
            continue
        if key in user.answered and user.answered[key] != trade.trade_id:
            found.append(f"{key} was answered as trade {user.answered[key]} and is trade {trade.trade_id}")
        if trade.amount != stake:
            found.append(f"{key} is a trade of {trade.amount}, not {stake}")
        if at_broker and trade.broker_order_id != at_broker[0]:
            found.append(f"{key} is order {at_broker[0]}, its trade {trade.state.value} {trade.broker_order_id}")
        if not at_broker and trade.state in SETTLED:
            found.append(f"{key} is {trade.state.value}, but the broker never had it")
    return found


def limits_broken(user: User, mine: Sequence[Trade], booked: Sequence[dict[str, Any]]) -> list[str]:
    """Hold the session's orders, as the broker had them, against its limits."""
    found = []
    claimed = {trade.broker_order_id for trade in mine}
    moves: list[tuple[float, int]] = []
    for order in booked:
        if str(order["broker_order_id"]) in claimed:
            moves += [(order["booked_time"], 1), (order["close_time"] or float("inf"), -1)]
    open_at_once = max(accumulate(change for _, change in sorted(moves)), default=0)
    if open_at_once > MAX_OPEN_TRADES:
        found.append(f"{open_at_once} orders of one session were open at once, {MAX_OPEN_TRADES} are allowed")
    by_bot = Counter(trade.state in SETTLED for trade in mine if not trade.client_request_id)
    if user.max_trades is not None and by_bot[True] > user.max_trades:
        found.append(f"a bot that may trade {user.max_trades} times traded {by_bot[True]} times")
    if any(trade.amount != BOT_STAKE for trade in mine if not trade.client_request_id):
        found.append("a bot traded another stake than its own")
    return found
