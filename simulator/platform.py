"""Everything that one brand consists of, put together; what the handlers of requests work with."""

from collections.abc import Callable
from dataclasses import dataclass

from simulator.brands import Brand
from simulator.exchange.accounts import Accounts
from simulator.exchange.exchange import Exchange
from simulator.exchange.journal import AccountEntry, Journal, JournalEntry, LoginEntry, OrderEntry, ResetEntry
from simulator.exchange.listings import Listings
from simulator.exchange.timers import Timers
from simulator.faults import FaultScript
from simulator.market.prices import PriceHistory
from simulator.settings import Settings
from simulator.wire.hub import Hub
from simulator.wire.init_data import InitializationData
from simulator.wire.publisher import Publisher


@dataclass(frozen=True, slots=True)
class Shared:
    """What the brands have in common."""

    settings: Settings
    histories: dict[int, PriceHistory]
    journal: Journal
    timers: Timers
    faults: FaultScript
    clock: Callable[[], float]
    """Unix seconds."""


class Platform:
    """One brand: its accounts, its listings, its exchange, and the sockets that are connected to it."""

    def __init__(self, brand: Brand, shared: Shared) -> None:
        self.brand = brand
        self.shared = shared
        self.hub = Hub()
        self.listings = Listings(shared.histories)
        self.initialization_data = InitializationData(self.listings, shared.settings.init_data_bytes)
        self.accounts = Accounts(brand, shared.journal)
        self.publisher = Publisher(self.hub, shared.clock)
        self.exchange = Exchange(
            brand,
            accounts=self.accounts,
            listings=self.listings,
            journal=shared.journal,
            timers=shared.timers,
            clock=shared.clock,
            listener=self.publisher,
        )
        self.publisher.speak_for(self.exchange)

    def restore(self, entry: JournalEntry) -> None:
        """Take one line of the journal over."""
        match entry:
            case AccountEntry():
                self.accounts.restore_account(entry)
            case LoginEntry():
                self.accounts.restore_login(entry)
            case OrderEntry():
                self.exchange.restore(entry)
            case ResetEntry():
                self._forget()

    def reset(self) -> None:
        """Forget accounts, logins and orders, cut all sockets, and offer what was offered at start."""
        self.shared.journal.append(ResetEntry(self.brand.name))
        self._forget()
        self.listings.reset()
        self.cut_sockets()

    def cut_sockets(self, email: str | None = None) -> int:
        """Drop all sockets, or those of one account, and return how many there were."""
        doomed = [c for c in self.hub.connections if email is None or c.email == email]
        for connection in doomed:
            connection.cut()
        return len(doomed)

    def _forget(self) -> None:
        self.accounts.clear()
        self.exchange.clear()
