"""What a WebSocket client makes of its frames, and how that differs from what the session says when asked."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from local.client import Feed, UserSession

_OF_A_TRADE: Final = frozenset({"trade_opened", "trade_closed", "trade_rejected", "trade_unknown"})
_COMPARED: Final = (
    "status",
    "asset",
    "direction",
    "amount",
    "profit",
    "broker_order_id",
    "client_request_id",
    "reason",
)
_COUNTED: Final = {"won": "wins", "lost": "losses", "tied": "ties"}


class Fold(Feed):
    """A client that keeps the state which its frames add up to."""

    def __init__(self, session: UserSession) -> None:
        super().__init__(session)
        self.state: dict[str, Any] = {}
        """The newest balance, bot status and broker connection."""
        self.trades: dict[str, dict[str, Any]] = {}
        self.unknown_since: dict[str, datetime] = {}
        self.resolved_at: dict[str, datetime] = {}

    def take(self, frame: dict[str, Any]) -> None:
        """Judge a frame as every feed does, and add it to the state."""
        known = len(self.events)
        super().take(frame)
        kind, data = frame["type"], frame.get("data", {})
        if kind == "snapshot":
            self._take_status(data)
            for trade in data["open_trades"]:
                self.trades[trade["trade_id"]] = trade
        if len(self.events) == known:
            return
        if kind in _OF_A_TRADE:
            self.trades[data["trade_id"]] = data
            self._time(kind, data["trade_id"], datetime.fromisoformat(frame["time"]))
        elif kind == "status_update":
            self._take_status(data)
        elif kind == "balance":
            self.state["balance"] = data["balance"]
        elif kind == "broker_connection":
            self.state["broker_connection"] = data["state"]

    def _take_status(self, status: Mapping[str, Any]) -> None:
        for name in ("balance", "status", "broker_connection"):
            self.state[name] = status[name]

    def _time(self, kind: str, trade_id: str, time: datetime) -> None:
        if kind == "trade_unknown":
            self.unknown_since.setdefault(trade_id, time)
        elif trade_id in self.unknown_since:
            self.resolved_at.setdefault(trade_id, time)

    def differences(self, status: Mapping[str, Any], trades: Sequence[Mapping[str, Any]]) -> list[str]:
        """Say in words where the fold is not what the API answers at rest."""
        found = [
            f"the stream's {name} is {self.state.get(name)}, status says {status[name]}"
            for name in ("balance", "status", "broker_connection")
            if self.state.get(name) != status[name]
        ]
        for trade in trades:
            folded = self.trades.get(trade["trade_id"])
            if folded is None:
                found.append(f"the stream never told of trade {trade['trade_id']} ({trade['status']})")
                continue
            found += [
                f"the stream's {name} of trade {trade['trade_id']} is {folded[name]}, trades says {trade[name]}"
                for name in _COMPARED
                if folded[name] != trade[name]
            ]
        told = {trade["trade_id"] for trade in trades}
        found += [f"the stream told of trade {one}, trades does not" for one in self.trades if one not in told]
        for outcome, counter in _COUNTED.items():
            count = sum(trade["status"] == outcome for trade in self.trades.values())
            if count != status[counter]:
                found.append(f"the stream has {count} {outcome}, status says {status[counter]}")
        return found
