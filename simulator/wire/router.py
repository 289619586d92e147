"""Takes a client's frames apart, finds who answers them, and sends the answers in their order."""

import contextlib
import inspect
import itertools
import uuid
from decimal import Decimal
from typing import Final

import msgspec
import structlog

from simulator.exchange.exchange import Intervention
from simulator.faults import FaultKind, Point
from simulator.platform import Platform
from simulator.wire import account, assets, elsewhere, frames, legacy, portfolio, quotes, trading
from simulator.wire.account import profile_shape
from simulator.wire.bodies import Authenticate, BadBodyError, Params, read_body
from simulator.wire.connection import Connection, Received, Subscription
from simulator.wire.frames import Frame, Message
from simulator.wire.requests import BAD_REQUEST, Methods, Reply, Request

log: Final = structlog.get_logger()

METHODS: Final[Methods] = {
    **account.METHODS,
    **assets.METHODS,
    **quotes.METHODS,
    **trading.METHODS,
    **portfolio.METHODS,
    **elsewhere.METHODS,
}


ORDERS: Final = {**trading.ORDERS, "buyV2": legacy.order_from}


class Router:
    """Handles the frames of one brand's connections."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._fronts = itertools.count(1)

    async def handle(self, connection: Connection, received: Received) -> None:
        """Handle one frame to its end."""
        if connection.is_cut:
            return
        frame = received.frame
        try:
            match frame.name:
                case "authenticate":
                    await self._authenticate(connection, frame)
                case "ssid":
                    await self._ssid(connection, frame)
                case "heartbeat":
                    pass
                case "setOptions":
                    self._acknowledge(connection, frame, "setOptions")
                case "subscribeMessage" | "unsubscribeMessage":
                    self._subscription(connection, frame)
                case "sendMessage":
                    await self._send_message(connection, received)
                case _ if frame.name in legacy.TOP_LEVEL:
                    await self._top_level(connection, received)
                case _:
                    log.info("frame_unknown", brand=self._platform.brand.name, name=frame.name)
                    if frame.echo is not None:
                        connection.send(frames.ack(frame.echo, reason="unknown message"))
        except msgspec.DecodeError as error:
            if frame.echo is not None:
                connection.send(frames.ack(frame.echo, reason=str(error)))

    # ---- opening -----------------------------------------------------------------------------------------------

    async def _authenticate(self, connection: Connection, frame: Frame) -> None:
        try:
            token = read_body(frame.msg, Authenticate).ssid
        except BadBodyError:
            token = ""
        if not self._admit(connection, token):
            connection.send(frames.reply(frame.echo, "authenticated", msg=False, status=None))
            await connection.close("not authenticated")
            return
        answer = {"name": "authenticated", "msg": True, "client_session_id": str(uuid.uuid4())}
        if frame.echo is not None:
            answer["request_id"] = frame.echo
        connection.send(frames.encode(answer))
        front = {"name": "front", "msg": "ws01.simulator.invalid", "session_id": str(next(self._fronts))}
        connection.send(frames.encode(front))

    async def _ssid(self, connection: Connection, frame: Frame) -> None:
        token = msgspec.json.decode(frame.msg)
        if not isinstance(token, str) or not self._admit(connection, token) or connection.account is None:
            connection.send(frames.reply(frame.echo, "profile", msg=False, status=None))
            await connection.close("not authenticated")
            return
        connection.legacy = True
        profile = profile_shape(connection.account, self._platform.brand.company_id, with_balances=True)
        connection.send(frames.reply(frame.echo, "profile", profile, status=None))

    def _admit(self, connection: Connection, token: str) -> bool:
        owner = self._platform.accounts.of_token(token)
        if owner is None:
            return False
        faults, brand = self._platform.shared.faults, self._platform.brand.name
        if faults.strike(Point.REQUEST, brand, owner.email, "authenticate", {FaultKind.TOKEN_EXPIRED}):
            self._platform.accounts.revoke_all(owner)
            return False
        self._platform.hub.admit(connection, owner)
        log.info("socket_admitted", brand=self._platform.brand.name, user_id=owner.user_id)
        return True

    # ---- subscriptions -----------------------------------------------------------------------------------------

    def _subscription(self, connection: Connection, frame: Frame) -> None:
        if not self._is_logged_in(connection, frame):
            return
        message = frames.read_message(frame.msg)
        try:
            filters = read_body(message.params, Params).routing_filters or {}
        except BadBodyError as error:
            connection.send(frames.ack(frame.echo or "", reason=str(error)))
            return
        subscription = Subscription(
            message.method, message.major, tuple(sorted((key, filter_text(value)) for key, value in filters.items()))
        )
        if frame.name == "subscribeMessage":
            self._platform.hub.subscribe(connection, subscription)
        else:
            self._platform.hub.unsubscribe(connection, subscription)
        self._acknowledge(connection, frame, message.method)

    # ---- requests ----------------------------------------------------------------------------------------------

    async def _send_message(self, connection: Connection, received: Received) -> None:
        frame = received.frame
        if not self._is_logged_in(connection, frame) or connection.account is None:
            return
        message = frames.read_message(frame.msg)
        request = Request(self._platform, connection, connection.account, message, frame.echo or "", received.at)
        if await self._fault_stops(request):
            return
        handler = METHODS.get(message.method)
        if handler is None:
            log.info("method_unknown", brand=self._platform.brand.name, method=message.name)
            reply: Reply | None = Reply(message.method, {"message": f"unknown method {message.name}"}, BAD_REQUEST)
        else:
            try:
                result = handler(request)
                reply = await result if inspect.isawaitable(result) else result
            except BadBodyError as error:
                reply = Reply(reply_name(message.method), {"message": str(error)}, BAD_REQUEST)
        if self._fault_cuts(request):
            if reply is not None and reply.after is not None:
                reply.after()
            return
        self._acknowledge(connection, frame, message.method)
        self._answer(connection, frame, message.method, reply)

    async def _top_level(self, connection: Connection, received: Received) -> None:
        frame = received.frame
        if connection.account is None:
            return
        message = Message(frame.name, body=frame.msg)
        request = Request(self._platform, connection, connection.account, message, frame.echo or "", received.at)
        if await self._fault_stops(request):
            return
        try:
            reply = legacy.TOP_LEVEL[frame.name](request)
        except BadBodyError as error:
            reply = Reply(frame.name, {"isSuccessful": False, "message": [str(error)], "result": {}}, BAD_REQUEST)
        if self._fault_cuts(request):
            if reply is not None and reply.after is not None:
                reply.after()
            return
        self._answer(connection, frame, frame.name, reply)

    def _answer(self, connection: Connection, frame: Frame, method: str, reply: Reply | None) -> None:
        if reply is None:
            return
        connection.deliver(Point.REPLY, method, frames.reply(frame.echo, reply.name, reply.msg, reply.status))
        if reply.after is not None:
            reply.after()

    def _acknowledge(self, connection: Connection, frame: Frame, method: str) -> None:
        """Acknowledge, unless the client sent no id to acknowledge."""
        if frame.echo is not None:
            connection.deliver(Point.ACK, method, frames.ack(frame.echo))

    def _is_logged_in(self, connection: Connection, frame: Frame) -> bool:
        if connection.account is None and frame.echo is not None:
            connection.send(frames.ack(frame.echo, reason="not authenticated"))
        return connection.account is not None

    # ---- faults ------------------------------------------------------------------------------------------------

    async def _fault_stops(self, request: Request) -> bool:
        """Let the script delay the request or keep it from being carried out."""
        hits = self._strike(request, {FaultKind.LATENCY, FaultKind.DISCONNECT_BEFORE, FaultKind.TOKEN_EXPIRED})
        for kind, delay in hits:
            if kind is FaultKind.LATENCY:
                await request.connection.pause(delay)
            else:
                self._record_dropped(request, kind)
                if kind is FaultKind.TOKEN_EXPIRED:
                    self._platform.accounts.revoke_all(request.account)
                    self._platform.cut_sockets(request.account.email)
                request.connection.cut()
                return True
        return False

    def _record_dropped(self, request: Request, kind: FaultKind) -> None:
        """Write an order into the ledger that a fault loses before it is booked."""
        read = ORDERS.get(request.message.method)
        if read is not None:
            with contextlib.suppress(BadBodyError):
                self._platform.exchange.place(read(request), Intervention(drop=kind.value))

    def _fault_cuts(self, request: Request) -> bool:
        """Let the script cut the socket after the request was carried out."""
        if self._strike(request, {FaultKind.DISCONNECT_AFTER}):
            request.connection.cut()
            return True
        return False

    def _strike(self, request: Request, kinds: set[FaultKind]) -> list[tuple[FaultKind, float]]:
        faults = self._platform.shared.faults
        if not faults.has(Point.REQUEST):
            return []
        hits = faults.strike(
            Point.REQUEST, self._platform.brand.name, request.account.email, request.message.method, kinds
        )
        return [(rule.kind, delay) for rule, delay in hits]


def filter_text(value: object) -> str:
    """Return a filter's value so that 76, 76.0 and "76" are the same."""
    return str(int(value)) if isinstance(value, Decimal) and abs(value) < 2**53 and value == int(value) else str(value)


def reply_name(method: str) -> str:
    """Return the name of a method's data frame, for answers to bodies that could not be read."""
    return _REPLY_NAMES.get(method, method.removeprefix("get-"))


_REPLY_NAMES: Final = {
    "open-option": "option",
    "place-digital-option": "digital-option-placed",
    "sell-options": "sold-options",
    "close-position": "position-closed",
    "close-position-batch": "position-closed",
    "reset-training-balance": "training-balance-reset",
    "set-user-settings": "set-user-settings-reply",
}
