"""The sockets of one brand: who is connected, and who wants to hear what."""

from collections.abc import Iterable

from simulator.exchange.accounts import Account
from simulator.wire.bodies import read_id
from simulator.wire.connection import Connection, Subscription

Topic = tuple[str, int, int]
"""A market event: its name, the asset, and the candle size (0 where there is none)."""

CANDLE = "candle-generated"
ALL_CANDLES = "candles-generated"
QUOTE = "quote-generated"
CHART = "newChartData"
DIGITAL_PRICE = "digital-option-client-price-generated"
SPLIT_PRICE = "client-price-generated"
INSTRUMENT = "instrument-generated"
OLD_DIGITAL_QUOTE = "instrument-quotes-generated"
MOOD = "traders-mood-changed"

_KEYS = {
    CANDLE: ("active_id", "size"),
    ALL_CANDLES: ("active_id", None),
    QUOTE: ("active_id", None),
    DIGITAL_PRICE: ("asset_id", "instrument_index"),
    SPLIT_PRICE: ("asset_id", None),
    INSTRUMENT: ("asset_id", None),
    OLD_DIGITAL_QUOTE: ("active", "expiration_period"),
    MOOD: ("asset_id", None),
}
"""The filters that say which asset and which size a subscription is about."""


class Hub:
    """Index of the live connections of a brand."""

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.topics: dict[Topic, set[Connection]] = {}
        self._by_user: dict[int, set[Connection]] = {}

    def add(self, connection: Connection) -> None:
        """A socket has opened."""
        self.connections.add(connection)

    def admit(self, connection: Connection, account: Account) -> None:
        """A socket has logged in; it may do so again, as somebody else too."""
        self._leave(connection)
        connection.account = account
        self._by_user.setdefault(account.user_id, set()).add(connection)

    def remove(self, connection: Connection) -> None:
        """A socket has gone, and its subscriptions with it."""
        self.connections.discard(connection)
        self._leave(connection)
        for topic in [topic for topic, listeners in self.topics.items() if connection in listeners]:
            self._unlisten(connection, topic)

    def of_user(self, user_id: int) -> Iterable[Connection]:
        """Return the sockets of a user."""
        return tuple(self._by_user.get(user_id, ()))

    def subscribe(self, connection: Connection, subscription: Subscription) -> None:
        """Note what a socket wants to hear; once more changes nothing."""
        connection.subscriptions.add(subscription)
        topic = topic_of(subscription)
        if topic is not None:
            self.listen(connection, topic)

    def unsubscribe(self, connection: Connection, subscription: Subscription) -> None:
        """Forget it; a subscription that there is not is no error."""
        connection.subscriptions.discard(subscription)
        topic = topic_of(subscription)
        if topic is not None and all(topic_of(other) != topic for other in connection.subscriptions):
            self._unlisten(connection, topic)

    def listen(self, connection: Connection, topic: Topic) -> None:
        """Add a socket to a topic."""
        self.topics.setdefault(topic, set()).add(connection)

    def listen_only(self, connection: Connection, name: str, assets: Iterable[int]) -> None:
        """Make a socket hear a topic for these assets and no others."""
        for topic in [topic for topic in self.topics if topic[0] == name]:
            self._unlisten(connection, topic)
        for asset in assets:
            self.listen(connection, (name, asset, 0))

    def _unlisten(self, connection: Connection, topic: Topic) -> None:
        listeners = self.topics.get(topic)
        if listeners is not None:
            listeners.discard(connection)
            if not listeners:
                del self.topics[topic]

    def _leave(self, connection: Connection) -> None:
        if connection.account is not None:
            others = self._by_user.get(connection.account.user_id, set())
            others.discard(connection)
            if not others:
                self._by_user.pop(connection.account.user_id, None)


def topic_of(subscription: Subscription) -> Topic | None:
    """Return the market topic that a subscription is about, if it is about one."""
    keys = _KEYS.get(subscription.name)
    if keys is None:
        return None
    filters = dict(subscription.filters)
    asset, size = filters.get(keys[0], ""), filters.get(keys[1], "0") if keys[1] else "0"
    # ``active`` of the old digital quotes is a ticker in some clients; those simply get nothing.
    numbers = read_id(asset), read_id(size)
    return None if numbers[0] is None or numbers[1] is None else (subscription.name, numbers[0], numbers[1])
