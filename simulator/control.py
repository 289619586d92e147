"""The control endpoint: reads the ledger and works the faults. On loopback, for tests and the demo."""

import dataclasses
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
from aiohttp import web

from simulator.exchange.orders import Order, OrderStatus, Outcome
from simulator.faults import FaultKind, FaultRule
from simulator.http import BrandServer
from simulator.market.assets import OptionKind
from simulator.market.prices import MICRO
from simulator.platform import Platform
from simulator.wire import assets, frames
from simulator.wire.frames import websocket_frame


class SettleRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /settle``: which open orders to end now, and how; without a selector, all."""

    brand: str | None = None
    email: str | None = None
    order_id: int | None = None
    outcome: Outcome | None = None


class AssetRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /assets``: new conditions of an asset; what is absent stays."""

    asset: str
    brand: str | None = None
    payout: int | None = None
    """Percent of the stake."""
    instrument_type: OptionKind | None = None
    """The kind whose payout changes; all if absent."""
    suspended: bool | None = None
    closed: bool | None = None


class BalanceRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /balance``: set a balance, opening the account if there is none."""

    brand: str
    email: str
    account_type: str
    amount: Decimal


class ResetRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /reset``: forget everything, of one brand or both."""

    brand: str | None = None


class RevokeRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /revoke``: make the session tokens of an account worthless and cut its sockets."""

    email: str
    brand: str | None = None


def ledger_entry(order: Order) -> dict[str, Any]:
    """Return an order in the words of the ledger; see the README for the meaning of each."""
    return {
        "number": order.number,
        "broker": order.brand,
        "brand": order.brand,
        "email": order.email,
        "login": order.email,
        "user_id": order.user_id,
        "balance_id": order.balance_id,
        "account_type": order.account_type,
        "balance_type": order.account_type,
        "request_id": order.request_id,
        "active_id": order.active_id,
        "asset": order.asset,
        "instrument_type": order.kind,
        "direction": order.direction,
        "amount": order.amount,
        "payout_rate": Decimal(order.payout) / 100,
        "requested_expiry": order.requested_expiry,
        "expiry": order.expiry,
        "duration": order.duration,
        "received_time": order.received,
        "booked_time": order.booked,
        "settle_time": order.settle_at,
        "broker_order_id": order.order_id,
        "external_id": order.external_id,
        "position_id": order.position_id,
        "status": order.status,
        "reason": order.reason,
        "open_price": None if order.open_price is None else order.open_price / MICRO,
        "close_price": None if order.close_price is None else order.close_price / MICRO,
        "close_time": order.closed,
        "outcome": order.outcome,
        "broker_outcome": None if order.outcome is None else order.outcome.broker_word,
        "forced_outcome": order.forced,
        "credit": order.credit,
        "profit": None if order.credit is None or order.amount is None else order.credit - order.amount,
        "balance_after": order.balance_after,
    }


class ControlServer:
    """The web application that controls all brands."""

    def __init__(self, servers: Mapping[str, BrandServer], platforms: Mapping[str, Platform]) -> None:
        self._servers = servers
        self._platforms = platforms
        self._faults = next(iter(platforms.values())).shared.faults

    def application(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[_errors])
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/ledger", self._ledger),
                web.get("/accounts", self._accounts),
                web.get("/logins", self._logins),
                web.get("/faults", self._list_faults),
                web.post("/faults", self._add_faults),
                web.delete("/faults", self._remove_faults),
                web.post("/settle", self._settle),
                web.post("/assets", self._assets),
                web.post("/balance", self._balance),
                web.post("/revoke", self._revoke),
                web.post("/reset", self._reset),
            ]
        )
        return app

    async def _health(self, _request: web.Request) -> web.Response:
        sockets = {name: len(platform.hub.connections) for name, platform in self._platforms.items()}
        return _json({"status": "ok", "sockets": sockets})

    async def _ledger(self, request: web.Request) -> web.Response:
        email, status = request.query.get("email", "").strip().lower(), request.query.get("status")
        orders = [
            order
            for platform in self._chosen(request.query.get("broker") or request.query.get("brand"))
            for order in platform.exchange.orders
            if (not email or order.email == email) and (not status or order.status == status)
        ]
        orders.sort(key=lambda order: order.received)
        return _json({"orders": [ledger_entry(order) for order in orders]})

    async def _accounts(self, request: web.Request) -> web.Response:
        email = request.query.get("email", "").strip().lower()
        found = [
            {
                "broker": platform.brand.name,
                "email": account.email,
                "user_id": account.user_id,
                "currency": "USD",
                "balances": {
                    balance.account_type: {"id": balance.id, "amount": balance.amount}
                    for balance in account.balances.values()
                },
                "sockets": len(tuple(platform.hub.of_user(account.user_id))),
            }
            for platform in self._chosen(request.query.get("broker") or request.query.get("brand"))
            for account in platform.accounts.all()
            if not email or account.email == email
        ]
        return _json({"accounts": found})

    async def _logins(self, request: web.Request) -> web.Response:
        email = request.query.get("email", "").strip().lower()
        attempts = [
            {"broker": platform.brand.name} | dataclasses.asdict(attempt)
            for platform in self._chosen(request.query.get("broker") or request.query.get("brand"))
            for attempt in self._servers[platform.brand.name].desk.attempts
            if not email or attempt.email == email
        ]
        return _json({"attempts": attempts})

    async def _list_faults(self, _request: web.Request) -> web.Response:
        rules = [msgspec.to_builtins(rule) | {"struck": struck} for rule, struck in self._faults.rules()]
        return _json({"faults": rules})

    async def _add_faults(self, request: web.Request) -> web.Response:
        rules = parse_rules(await request.read())
        ids = self._faults.add(rules)
        for rule in rules:
            if rule.kind is FaultKind.OUTAGE and rule.starts_in == 0 and rule.email is None:
                for platform in self._chosen(rule.brand):
                    platform.cut_sockets()
        return _json({"ids": ids})

    async def _remove_faults(self, request: web.Request) -> web.Response:
        rule_id = request.query.get("id")
        if rule_id is None:
            self._faults.clear()
        elif not self._faults.remove(rule_id):
            return _json({"error": f"no fault {rule_id!r}"}, 404)
        return _json({})

    async def _settle(self, request: web.Request) -> web.Response:
        wanted = await _read(request, SettleRequest)
        if wanted.outcome is Outcome.SOLD:
            raise ValueError("an order cannot be settled as sold")
        settled = []
        for platform in self._chosen(wanted.brand):
            now = platform.shared.clock()
            for order in list(platform.exchange.orders):
                if (
                    order.status is OrderStatus.OPEN
                    and (wanted.email is None or order.email == wanted.email.strip().lower())
                    and (wanted.order_id is None or wanted.order_id in (order.order_id, order.external_id))
                ):
                    platform.exchange.settle(order, forced=wanted.outcome, at=now)
                    settled.append(ledger_entry(order))
        return _json({"orders": settled})

    async def _assets(self, request: web.Request) -> web.Response:
        wanted = await _read(request, AssetRequest)
        for platform in self._chosen(wanted.brand):
            listing = platform.listings.by_ticker(wanted.asset)
            if listing is None:
                raise ValueError(f"no asset {wanted.asset!r}")
            for kind in listing.commissions:
                if wanted.payout is not None and wanted.instrument_type in (None, kind):
                    listing.commissions[kind] = 100 - wanted.payout
                    self._announce_commission(platform, listing.asset.active_id, kind, 100 - wanted.payout)
            if wanted.suspended is not None:
                listing.suspended = wanted.suspended
            if wanted.closed is not None:
                listing.closed = wanted.closed
            platform.listings.changed()
            self._announce_underlyings(platform)
        return _json({})

    def _announce_commission(self, platform: Platform, active_id: int, kind: OptionKind, commission: int) -> None:
        facts = {"instrument_type": kind.instrument_type, "active_id": str(active_id)}
        msg = {"instrument_type": kind.instrument_type, "active_id": active_id, "commission": {"value": commission}}
        _announce(platform, "commission-changed", facts, frames.push("trading-settings", "commission-changed", msg))

    def _announce_underlyings(self, platform: Platform) -> None:
        msg = assets.underlyings(platform, platform.shared.clock())
        name = "underlying-list-changed"
        _announce(platform, name, {}, frames.push("digital-option-instruments", name, msg))

    async def _balance(self, request: web.Request) -> web.Response:
        wanted = await _read(request, BalanceRequest)
        (platform,) = self._chosen(wanted.brand)
        account = platform.accounts.get_or_create(wanted.email)
        for balance in account.balances.values():
            if balance.account_type == wanted.account_type:
                platform.exchange.reset_practice(balance, wanted.amount)
                return _json({"id": balance.id, "amount": balance.amount})
        raise ValueError("account_type is PRACTICE or REAL")

    async def _revoke(self, request: web.Request) -> web.Response:
        wanted = await _read(request, RevokeRequest)
        revoked = 0
        for platform in self._chosen(wanted.brand):
            account = platform.accounts.find(wanted.email)
            if account is not None:
                revoked += platform.accounts.revoke_all(account)
                platform.cut_sockets(account.email)
        return _json({"revoked": revoked})

    async def _reset(self, request: web.Request) -> web.Response:
        wanted = await _read(request, ResetRequest)
        if wanted.brand is None:
            self._faults.clear()
        for platform in self._chosen(wanted.brand):
            platform.reset()
            self._servers[platform.brand.name].desk.reset()
        return _json({})

    def _chosen(self, brand: str | None) -> list[Platform]:
        if brand is None:
            return list(self._platforms.values())
        if brand not in self._platforms:
            raise ValueError(f"no brand {brand!r}")
        return [self._platforms[brand]]


def parse_rules(raw: bytes) -> list[FaultRule]:
    """Read one fault rule or a list of them.

    Raises:
        msgspec.DecodeError: It is neither.
    """
    if raw.lstrip().startswith(b"["):
        return msgspec.json.decode(raw, type=list[FaultRule])
    return [msgspec.json.decode(raw, type=FaultRule)]


def _announce(platform: Platform, name: str, facts: dict[str, str], payload: bytes) -> None:
    for connection in tuple(platform.hub.connections):
        if any(s.name == name and s.matches(facts) for s in connection.subscriptions):
            connection.push(name, websocket_frame(payload), payload)


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except (ValueError, msgspec.DecodeError) as error:
        return _json({"error": str(error)}, 400)
    return response


async def _read(request: web.Request, body_type: type[Any]) -> Any:
    return msgspec.json.decode(await request.read() or b"{}", type=body_type)


def _json(body: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=frames.encode(body), status=status, content_type="application/json")
