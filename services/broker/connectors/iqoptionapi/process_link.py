"""The link through the ``iqoptionapi`` library, which runs in a child process: translates calls and messages, nothing else.

What the library cannot do: blitz options (it subscribes to none of their events), the payout that an order was made for (its
version of the order has none, so the broker does not compare), the rejection of a digital order after its acceptance (the
order stays SUBMITTED), several things at once, assets that its own table and the turbo and binary lists do not name.
"""

import asyncio
import itertools
import json
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from services.broker.connectors.quadcode.brands import Brand
from services.broker.connectors.quadcode.link import (
    FrameCounts,
    Link,
    LostError,
    RequestRefusedError,
    Timing,
    TokenRefusedError,
)
from services.broker.connectors.quadcode.protocol import Answer, Body, Call, ServerClock, Subscription
from services.broker.domain.errors import BrokerUnavailableError, SendDeadlinePassedError
from services.broker.domain.values import AccountType
from services.runtime.clock import Clock
from services.runtime.secret import Secret

CHILD: Final = Path(__file__).with_name("child.py")
START_TIME: Final = 20.0
"""Seconds for the child to import the library and log in."""
MAX_LINE: Final = 64 * 1024 * 1024
KINDS: Final = ("turbo-option", "binary-option", "digital-option")
PAGE: Final = 1_000
MAX_PAGES: Final = 20
DIGITAL_PRICE_TIME: Final = 3
REFUSED: Final = 4_000
TYPE_NAMES: Final = {1: "binary", 3: "turbo"}
RAW_EVENTS: Final = {
    "digital-options": "digital_options_position_changed1",
    "binary-options": "binary_options_option_changed1",
}

Json = Any
"""What a line of the child holds; it goes on as the wire's text and is typed where it is parsed."""


class ProcessLink(Link):
    """Lets the library speak with the broker, one child process for one connection.

    Args:
        python: The interpreter of the environment that has the library.
        brand: Where the library dials.
        account_type: Whose balance the library orders with.
        clock: Our time of day.
        timing: How long to wait.
        counts: The process's counters.
    """

    def __init__(
        self, python: str, brand: Brand, account_type: AccountType, clock: Clock, *, timing: Timing, counts: FrameCounts
    ) -> None:
        super().__init__(counts)
        self._python = python
        self._brand = brand
        self._account_type = account_type
        self._clock = clock
        self._timing = timing
        self._server_clock = ServerClock()
        self._ids = itertools.count(1)
        self._child: asyncio.subprocess.Process | None = None
        self._replies: dict[int, asyncio.Future[Json]] = {}
        self._answers: dict[str, asyncio.Future[Answer | None]] = {}
        self._early: dict[str, Answer] = {}
        """Answers to digital orders that came before the child told the order's request id."""
        self._subscriptions: dict[Subscription, None] = {}
        self._names: dict[int, str] = {}
        self._ticked = asyncio.Event()
        self._calls: dict[str, Callable[[Body], Coroutine[Any, Any, Json]]] = {
            "get-profile": self._profile,
            "get-balances": lambda _: self._ask("balances"),
            "get-initialization-data": self._initialization,
            "get-underlying-list": self._underlyings,
            "get-instruments": self._instruments,
            "get-candles": self._candles,
            "get-positions": self._positions,
            "get-history-positions": self._history,
        }

    def broker_time(self) -> datetime:
        """Return the broker's time of day as best known."""
        return self._clock.now() + timedelta(seconds=self._server_clock.offset or 0.0)

    async def set_up(self) -> None:
        """Renew all subscriptions and wait for the broker's clock."""
        try:
            async with asyncio.timeout(self._timing.request):
                await self._ticked.wait()
        except TimeoutError:
            raise BrokerUnavailableError("the broker's clock does not tick") from None
        # The assets' names are known to nobody in this child before, though the process may know the assets already.
        await self._initialization({})
        for subscription in self._subscriptions:
            await self._watch(subscription)

    async def call(self, call: Call) -> msgspec.Raw:
        """Let the library ask the broker something."""
        translate = self._calls.get(_bare(call.method))
        if translate is None:
            raise _refused(f"the library has no {call.method}")
        return _raw(await translate(call.body))

    async def post(self, call: Call, not_after: datetime | None = None) -> asyncio.Future[Answer | None]:
        """Let the library send what must not be sent twice; the child looks at the clock last."""
        end = math.inf if not_after is None else not_after.timestamp()
        if self._clock.now().timestamp() >= end:
            raise SendDeadlinePassedError
        # JSON has no infinity.
        end = min(end, 1e15)
        match _bare(call.method):
            case "open-option":
                return await self._post_option(call.body, end)
            case "place-digital-option":
                return await self._post_digital(call.body, end)
            case "sell-options":
                options: Json = call.body["options_ids"]
                return await self._post_sale("sell", options[0])
            case "close-position":
                return await self._post_sale("sell_digital", call.body["position_id"])
        raise BrokerUnavailableError(f"the library has no {call.method}")

    async def subscribe(self, subscription: Subscription) -> None:
        """Let the library subscribe. What it subscribes to by itself is only remembered."""
        if subscription in self._subscriptions:
            return
        self._subscriptions[subscription] = None
        if self.is_open:
            with suppress(BrokerUnavailableError):
                await self._watch(subscription)

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Let the library end a stream of pushes."""
        if subscription not in self._subscriptions:
            return
        del self._subscriptions[subscription]
        if subscription.name == "candle-generated" and self.is_open:
            with suppress(BrokerUnavailableError, RequestRefusedError):
                await self._ask("leave_candles", *self._candle_filter(subscription))

    def forget(self, subscription: Subscription) -> None:
        """Do not renew a subscription in the next child."""
        self._subscriptions.pop(subscription, None)

    # -- the child -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _opened(self, token: Secret) -> AsyncIterator[None]:
        """Start a child and let it log in with the token."""
        self._ticked.clear()
        try:
            child = await asyncio.create_subprocess_exec(
                self._python,
                "-I",
                str(CHILD),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                # The library's log may hold what must not be seen.
                stderr=asyncio.subprocess.DEVNULL,
                limit=MAX_LINE,
            )
        except OSError as error:
            raise BrokerUnavailableError("the library's process cannot be started") from error
        self._child = child
        try:
            # Through the pipe, not the command line: that is for all to read.
            where = {"ws": self._brand.ws_url, "token": token.reveal(), "account_type": self._account_type.value}
            self._write(where)
            async with asyncio.timeout(START_TIME):
                opened = await self._first_word(child)
            if not opened:
                raise TokenRefusedError
            yield
        except TimeoutError:
            raise BrokerUnavailableError("the library does not connect") from None
        finally:
            self._child = None
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()

    async def _first_word(self, child: asyncio.subprocess.Process) -> bool:
        while True:
            message = await self._read_line(child)
            if "opened" in message:
                return bool(message["opened"])
            self._take(message)

    async def _read(self) -> None:
        """Read the child's lines until it ends or the broker's clock has stopped."""
        loop, child = asyncio.get_running_loop(), self._child
        if child is None:
            raise LostError
        try:
            async with asyncio.timeout(self._timing.silence) as watchdog:
                while True:
                    if self._take(await self._read_line(child)):
                        watchdog.reschedule(loop.time() + self._timing.silence)
        except (TimeoutError, BrokerUnavailableError):
            raise LostError from None

    async def _read_line(self, child: asyncio.subprocess.Process) -> dict[str, Json]:
        assert child.stdout is not None  # noqa: S101  # it was started with a pipe
        try:
            line = await child.stdout.readline()
        except ValueError as error:
            raise BrokerUnavailableError("the library's process makes no sense") from error
        if not line:
            raise BrokerUnavailableError("the library's process has ended")
        message: dict[str, Json] = json.loads(line)
        return message

    def _take(self, message: dict[str, Json]) -> bool:
        """Take a line; True if it was a tick of the broker's clock."""
        if "push" in message:
            name, msg = message["push"], message["msg"]
            if name == "timeSync":
                self._server_clock.take(msg / 1000, self._clock.now().timestamp())
                self._ticked.set()
                return True
            self._dispatch(name, _raw(_nested(msg) if name == "position-changed" else msg))
        elif "answer" in message:
            request_id = str(message["answer"])
            answer = Answer(request_id, "", message["status"] or 0, _raw(message["msg"]))
            future = self._answers.pop(request_id, None)
            if future is None:
                self._early[request_id] = answer
            elif not future.done():
                future.set_result(answer)
        else:
            reply = self._replies.pop(message["id"], None)
            if reply is not None and not reply.done():
                reply.set_result(message)
        return False

    def _lose(self) -> None:
        """Nothing will be answered any more."""
        replies, self._replies = self._replies, {}
        for reply in replies.values():
            if not reply.done():
                reply.set_result(None)
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            if not answer.done():
                answer.set_result(None)
        self._early.clear()

    def _write(self, message: Json) -> None:
        child = self._child
        if child is None or child.stdin is None or child.stdin.is_closing():
            raise BrokerUnavailableError("the connection to the broker is down")
        child.stdin.write(json.dumps(message).encode() + b"\n")

    async def _ask(self, command: str, *arguments: Json) -> Json:
        """Let the child do something and return what comes of it.

        Raises:
            RequestRefusedError: The broker or the library said no.
            SendDeadlinePassedError: The child found it too late.
            BrokerUnavailableError: The child is gone, or stuck: then it is ended, for the library never gives up waiting.
        """
        number = next(self._ids)
        reply: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._replies[number] = reply
        try:
            self._write({"id": number, "do": command, "with": arguments})
            async with asyncio.timeout(self._timing.request):
                message = await reply
        except TimeoutError:
            self._kill()
            raise BrokerUnavailableError("the library does not answer") from None
        finally:
            self._replies.pop(number, None)
        if message is None:
            raise BrokerUnavailableError("the connection to the broker was lost")
        error = message.get("error")
        if error is None:
            return message["ok"]
        if error["kind"] == "refused":
            raise _refused(error["text"])
        if error["kind"] == "too_late":
            raise SendDeadlinePassedError
        raise BrokerUnavailableError("the library has failed")

    def _kill(self) -> None:
        if self._child is not None:
            with suppress(ProcessLookupError):
                self._child.kill()

    # -- what must not be sent twice -------------------------------------------------------------------------------

    async def _post_option(self, body: Body, end: float) -> asyncio.Future[Answer | None]:
        kind = TYPE_NAMES.get(body["option_type_id"])  # type: ignore[arg-type]  # we wrote it
        if kind is None:
            return _done(_refusal("the asset is not available at the moment"))
        request_id = f"order-{next(self._ids)}"
        answer = self._answers[request_id] = asyncio.get_running_loop().create_future()
        order = {
            "asset": self._name(body["active_id"]),
            "amount": body["price"],
            "direction": body["direction"],
            "kind": kind,
            "expiry": body["expired"],
        }
        await self._send(answer, "buy", request_id, order, end)
        return answer

    async def _post_digital(self, body: Body, end: float) -> asyncio.Future[Answer | None]:
        answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        request_id = await self._send(answer, "buy_digital", body["instrument_id"], body["amount"], end)
        if request_id is not None and not answer.done():
            early = self._early.pop(request_id, None)
            if early is None:
                self._answers[request_id] = answer
            else:
                answer.set_result(early)
        return answer

    async def _send(self, answer: asyncio.Future[Answer | None], command: str, *arguments: Json) -> Json:
        """Let the child send an order. What it says before sending is final; if it says nothing, nothing is known."""
        if self._child is None or not self.is_open:
            raise BrokerUnavailableError("the connection to the broker is down")
        try:
            return await self._ask(command, *arguments)
        except RequestRefusedError as refusal:
            answer.set_result(_refusal(refusal.text))
        except BrokerUnavailableError:
            if not answer.done():
                answer.set_result(None)
        return None

    async def _post_sale(self, command: str, broker_id: Json) -> asyncio.Future[Answer | None]:
        answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        sold = await self._send(answer, command, broker_id)
        if not answer.done():
            answer.set_result(Answer("", "", 2000, _raw(sold)))
        return answer

    # -- translations ----------------------------------------------------------------------------------------------

    async def _watch(self, subscription: Subscription) -> None:
        filters = dict(subscription.filters)
        match _bare(subscription.name):
            case "candle-generated":
                await self._ask("watch_candles", *self._candle_filter(subscription))
            case "commission-changed":
                if filters["instrument_type"] != "blitz-option":
                    await self._ask("watch_payouts", filters["instrument_type"])
            case "digital-option-client-price-generated":
                await self._tell_digital_price(int(filters["asset_id"]), int(filters["instrument_index"]))

    async def _tell_digital_price(self, active_id: int, index: int) -> None:
        percent = await self._ask("digital_payout", self._name(active_id), DIGITAL_PRICE_TIME)
        if percent:
            # The library tells the payout; the price of a contract that pays it is what the push would say.
            price = {"ask": 10_000 / (100 + percent)}
            level = {"strike": "SPT", "call": price, "put": price}
            self._dispatch(
                "digital-option-client-price-generated", _raw({"instrument_index": index, "prices": [level]})
            )

    async def _profile(self, _body: Body) -> Json:
        return {"result": await self._ask("profile")}

    async def _initialization(self, _body: Body) -> Json:
        data = await self._ask("initialization")
        for kind in ("turbo", "binary"):
            for active in data[kind]["actives"].values():
                self._names[int(active["id"])] = str(active["name"]).split(".", 1)[-1]
        return data | {"blitz": {"actives": {}}}

    async def _underlyings(self, _body: Body) -> Json:
        data = await self._ask("underlyings")
        if data is None:
            raise _refused("the broker does not list digital options")
        known = [entry for entry in data["underlying"] if entry["active_id"] in self._names]
        return data | {"underlying": known}

    async def _instruments(self, body: Body) -> Json:
        """Write the digital options on offer from the grid: the library has no call for them."""
        now, asset = self.broker_time().timestamp(), self._name(body["asset_id"])
        instruments = []
        for period in (60, 300, 900):
            first = int(now) // period * period + period
            for expiration in (first, first + period):
                stamp = datetime.fromtimestamp(expiration, UTC).strftime("%Y%m%d%H%M")
                sides = [
                    {"strike": "SPT", "symbol": f"do{asset}{stamp}PT{period // 60}M{letter}SPT", "direction": direction}
                    for letter, direction in (("C", "call"), ("P", "put"))
                ]
                instruments.append(
                    {
                        "index": expiration * 10 + period // 300,
                        "expiration": expiration,
                        "period": period,
                        "data": sides,
                    }
                )
        return {"instruments": instruments}

    async def _candles(self, body: Body) -> Json:
        if "from_id" in body:
            return {"candles": []}
        size: Json = body["size"]
        to: Json = body["to"]
        start: Json = body.get("from")
        count = body["count"] if start is None else max(1, min(1_000, -(-(to - start) // size)))
        listed = await self._ask("candles", self._name(body["active_id"]), size, count, to)
        return {"candles": listed or []}

    async def _positions(self, body: Body) -> Json:
        if body["offset"]:
            return {"positions": []}
        found, whole = await self._all_pages("positions", KINDS)
        # A total beyond what is listed says that the list is not complete.
        return {"positions": found, "total": len(found) + (not whole)}

    async def _history(self, body: Body) -> Json:
        if body["offset"]:
            return {"positions": []}
        kinds: Json = body["instrument_types"]
        found, whole = await self._all_pages("history", [kind for kind in KINDS if kind in kinds])
        if not whole:
            raise _refused("the history is too long for the library")
        wanted = body.get("external_id")
        matching = [position for position in found if wanted in (None, position.get("external_id"))]
        return {"positions": sorted(matching, key=lambda position: position.get("close_time") or 0, reverse=True)}

    async def _all_pages(self, command: str, kinds: Iterable[str]) -> tuple[list[Json], bool]:
        """Return the positions of all kinds, and whether that is all there are."""
        found: list[Json] = []
        whole = True
        for kind in kinds:
            offset = 0
            for _ in range(MAX_PAGES):
                listed = await self._ask(command, kind, PAGE, offset)
                found += [_nested(position) for position in listed["positions"]]
                offset += len(listed["positions"])
                if len(listed["positions"]) < min(PAGE, listed.get("limit") or PAGE):
                    break
            else:
                whole = False
        return found, whole

    def _candle_filter(self, subscription: Subscription) -> tuple[str, Json]:
        filters = dict(subscription.filters)
        return self._name(filters["active_id"]), filters["size"]

    def _name(self, active_id: Json) -> str:
        return self._names.get(int(active_id), "")


def _bare(method: str) -> str:
    return method.rsplit(".", 1)[-1]


def _raw(value: Json) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _nested(position: Json) -> Json:
    """Put the product's part where newer versions of the message have it."""
    name = RAW_EVENTS.get(position.get("source"))
    if name is None or not isinstance(position.get("raw_event"), dict):
        return position
    return position | {"raw_event": {name: position["raw_event"]}}


def _refused(text: str) -> RequestRefusedError:
    return RequestRefusedError(REFUSED, _raw({"message": text}), text)


def _refusal(text: str) -> Answer:
    return Answer("", "", REFUSED, _raw({"message": text}))


def _done(answer: Answer) -> asyncio.Future[Answer | None]:
    future: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
    future.set_result(answer)
    return future
