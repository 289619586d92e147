"""Tells a user's sockets what happens to his money and his orders."""

from collections.abc import Callable
from typing import Any, Final

from simulator.exchange.accounts import Balance
from simulator.exchange.exchange import Exchange
from simulator.exchange.orders import Order
from simulator.market.assets import OptionKind
from simulator.wire import events, frames
from simulator.wire.connection import Connection
from simulator.wire.hub import Hub

OPTIONS: Final = "binary-options"
NESTED_POSITIONS: Final = 3
NESTED_ORDERS: Final = 2
"""Versions from which ``raw_event`` is nested."""


class Publisher:
    """The ``Listener`` of an exchange. Option events go out unasked, position events to those who subscribed."""

    def __init__(self, hub: Hub, clock: Callable[[], float]) -> None:
        self._hub = hub
        self._clock = clock
        self._exchange: Exchange | None = None

    def speak_for(self, exchange: Exchange) -> None:
        """Say whose positions are spoken of; the two know each other, so this comes after both exist."""
        self._exchange = exchange

    def balance_changed(self, balance: Balance) -> None:
        """Push ``balance-changed`` to legacy sockets and to those who subscribed."""
        now = self._clock()
        current = {
            "id": balance.id,
            "type": balance.type_id,
            "amount": balance.amount,
            "enrolled_amount": balance.amount,
            "bonus_amount": 0,
            "currency": events.CURRENCY,
            "index": int(now * 1000),
        }
        msg = {"id": balance.id, "user_id": balance.user_id, "current_balance": current}
        payload = frames.push("balances", "balance-changed", msg)
        for connection in self._hub.of_user(balance.user_id):
            if connection.legacy or any(s.name == "balance-changed" for s in connection.subscriptions):
                connection.push("balance-changed", frames.websocket_frame(payload), payload)

    def order_opened(self, order: Order) -> None:
        """Push the opening of a contract."""
        now = self._clock()
        if order.kind is OptionKind.DIGITAL:
            self._order_changed(order)
        else:
            self._push_all(order, "option-opened", events.option_opened(order))
            self._push_all(order, "socket-option-opened", events.socket_option(order, now))
        self._position_changed(order)

    def order_closed(self, order: Order) -> None:
        """Push the end of a contract."""
        if order.kind is not OptionKind.DIGITAL:
            ended = events.socket_option(order, self._clock())
            self._push_all(order, "option-closed", events.option_closed(order))
            self._push_all(order, "socket-option-closed", ended)
            payload = frames.bare("listInfoData", [ended])
            for connection in self._hub.of_user(order.user_id):
                connection.push("listInfoData", frames.websocket_frame(payload), payload)
        self._position_changed(order)

    def order_rejected(self, order: Order) -> None:
        """Push the rejection of a digital order."""
        self._order_changed(order)

    def _push_all(self, order: Order, name: str, msg: dict[str, Any]) -> None:
        payload = frames.push(OPTIONS, name, msg)
        frame = frames.websocket_frame(payload)
        for connection in self._hub.of_user(order.user_id):
            connection.push(name, frame, payload)

    def _position_changed(self, order: Order) -> None:
        exchange = self._exchange
        if exchange is None:
            raise RuntimeError("speak_for comes first")
        now = self._clock()
        self._to_subscribers(
            order,
            "position-changed",
            NESTED_POSITIONS,
            lambda nested: events.position(order, exchange, now, nested=nested),
        )

    def _order_changed(self, order: Order) -> None:
        self._to_subscribers(
            order, "order-changed", NESTED_ORDERS, lambda nested: events.order_changed(order, nested=nested)
        )

    def _to_subscribers(
        self, order: Order, name: str, nested_from: int, shape: Callable[[bool], dict[str, Any]]
    ) -> None:
        """Send an event once to each socket for each form in which it was subscribed."""
        facts = {
            "user_id": str(order.user_id),
            "user_balance_id": str(order.balance_id),
            "instrument_type": "" if order.kind is None else order.kind.instrument_type,
        }
        ready: dict[bool, bytes] = {}
        for connection in self._hub.of_user(order.user_id):
            for nested in sorted(_forms(connection, name, facts, nested_from)):
                if nested not in ready:
                    ready[nested] = frames.push("portfolio", name, shape(nested))
                connection.push(name, frames.websocket_frame(ready[nested]), ready[nested])


def _forms(connection: Connection, name: str, facts: dict[str, str], nested_from: int) -> set[bool]:
    return {s.major >= nested_from for s in connection.subscriptions if s.name == name and s.matches(facts)}
