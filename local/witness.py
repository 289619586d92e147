"""What the simulator saw, held against what a user was told: the judge of the demo and of the end-to-end tests."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

_TIMEOUT: Final = 20.0
_SETTLED: Final = frozenset({"won", "lost", "tied", "sold"})
_PLACED: Final = _SETTLED | {"open"}


class Simulator:
    """The simulator's control endpoint."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._http.close()

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """Make one call and return the decoded body.

        Raises:
            aiohttp.ClientError: No answer, or one that is not 2xx.
        """
        async with self._http.request(method, self._url + path, raise_for_status=True, **options) as answer:
            return await answer.json()

    async def ledger(self, email: str) -> list["LedgerOrder"]:
        """Return every order of a login, at any brand, in order of arrival."""
        body = await self.call("GET", "/ledger", params={"email": email})
        return [parse_order(order) for order in body["orders"]]

    async def balance(self, email: str, broker: str, account_type: str) -> Decimal:
        """Return what an account holds.

        Raises:
            LookupError: There is no such account.
        """
        body = await self.call("GET", "/accounts", params={"email": email, "broker": broker})
        for account in body["accounts"]:
            return Decimal(str(account["balances"][account_type]["amount"]))
        raise LookupError(f"{broker} has no account of that login")


@dataclass(frozen=True, slots=True)
class LedgerOrder:
    """One order as the simulator wrote it down, in the contract's words."""

    email: str
    broker: str
    account_type: str | None
    """Type of the balance it named; None if that was not the login's."""
    order_id: str
    """The broker's id; empty if it was not booked."""
    asset: str
    direction: str
    amount: Decimal
    status: str
    """``refused``, ``dropped``, ``open`` or ``closed``."""
    outcome: str | None
    credit: Decimal
    """What was paid back."""


def parse_order(order: Mapping[str, Any]) -> LedgerOrder:
    """Read an order of the control endpoint."""
    return LedgerOrder(
        email=order["email"],
        broker=order["broker"],
        account_type=order["account_type"],
        order_id=str(order["broker_order_id"] or ""),
        asset=str(order["asset"]),
        direction=str(order["direction"]),
        amount=Decimal(str(order["amount"])),
        status=order["status"],
        outcome=order["outcome"],
        credit=Decimal(str(order["credit"] or 0)),
    )


@dataclass(frozen=True, slots=True)
class Story:
    """What one user was told through the gateway."""

    email: str
    broker: str
    account_type: str
    start_balance: Decimal
    end_balance: Decimal
    trades: Sequence[Mapping[str, Any]]
    """The user's trades as the API answers them, all settled."""


def judge(story: Story, orders: Sequence[LedgerOrder], balance: Decimal) -> list[str]:
    """Hold a user's story against that login's orders and balance at the broker; return every difference, in words.

    Nothing is returned if every order went to the user's own login, brand and account type, each belongs to exactly one
    trade, every trade has the broker's own outcome and profit, and the balances agree to the cent.
    """
    faults: list[str] = []
    for order in orders:
        owner = (order.email, order.broker, order.account_type)
        if owner != (story.email, story.broker, story.account_type):
            faults.append(
                f"order {order.order_id} is on {owner[1]} {owner[2]}, not {story.broker} {story.account_type}"
            )
    booked = {order.order_id: order for order in orders if order.status in ("open", "closed")}
    claims = Counter(str(trade["broker_order_id"]) for trade in story.trades if trade["status"] in _PLACED)
    faults += [f"order {number} belongs to {count} trades" for number, count in claims.items() if count > 1]
    faults += [f"order {number} at the broker belongs to no trade" for number in booked if number not in claims]
    profit = Decimal(0)
    for trade in story.trades:
        name = f"trade {trade['trade_id']}"
        if trade["status"] not in _PLACED:
            if trade["status"] in ("pending", "unknown"):
                faults.append(f"{name} is still {trade['status']}")
            continue
        booking = booked.get(str(trade["broker_order_id"]))
        if booking is None:
            faults.append(f"{name} names order {trade['broker_order_id']}, which the broker never booked")
            continue
        faults += [f"{name}: {difference}" for difference in _differences(trade, booking)]
        profit += cents(trade["profit"])
    if not story.start_balance + profit == story.end_balance == balance:
        told = f"{story.start_balance} at first, {profit:+} by trades, {story.end_balance} at the end"
        faults.append(f"the user was told a balance of {told}; the broker has {balance}")
    return faults


def cents(number: float) -> Decimal:
    """Return a JSON number of the API as exact money."""
    return Decimal(str(number)).quantize(Decimal("0.01"))


def _differences(trade: Mapping[str, Any], order: LedgerOrder) -> list[str]:
    said = {
        "broker": trade["broker"],
        "account type": trade["account_type"],
        "asset": trade["asset"],
        "direction": trade["direction"],
        "amount": cents(trade["amount"]),
        "outcome": trade["status"] if trade["status"] in _SETTLED else None,
        "profit": cents(trade["profit"]),
    }
    profit = order.credit - order.amount if order.outcome is not None else Decimal(0)
    booked = {
        "broker": order.broker,
        "account type": order.account_type,
        "asset": order.asset,
        "direction": order.direction,
        "amount": order.amount,
        "outcome": order.outcome,
        "profit": profit,
    }
    return [f"{what} {said[what]}, but the broker booked {booked[what]}" for what in said if said[what] != booked[what]]
