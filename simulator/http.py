"""HTTP of one brand: login, second factor, logout, the site's old API, and the door to the WebSocket."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, Final, assert_never

import msgspec
import structlog
from aiohttp import web

from simulator.exchange.accounts import normalise
from simulator.faults import FaultKind, Point
from simulator.login import METHODS, InvalidCredentials, LoggedIn, LoginDesk, SecondFactorNeeded, Throttled
from simulator.platform import Platform
from simulator.ticker import time_sync
from simulator.wire import frames
from simulator.wire.account import api_result, profile_shape, select_balance
from simulator.wire.connection import Connection
from simulator.wire.router import Router

SSID_LIFE: Final = 30 * 86_400
MAX_FRAME: Final = 1_048_576
"""Bytes of the largest frame taken from a client."""
WRONG: Final = "You entered the wrong credentials. Please check that the login/password is correct."

log: Final = structlog.get_logger()


class BrandServer:
    """The web application of a brand."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._shared = platform.shared
        self._router = Router(platform)
        self._numbers = itertools.count(1)
        self.desk = LoginDesk(
            platform.brand.name, platform.accounts, self._shared.faults, self._shared.settings, self._shared.clock
        )

    def application(self) -> web.Application:
        """Return the application; the paths are those of all hosts of the brand together."""
        app = web.Application(middlewares=[self._outage])
        add = app.router.add_route
        for path in ("/api/v2/login", "/v2/login"):
            add("POST", path, self._login)
        for path in ("/api/v1.0/login", "/v1.0/login"):
            add("POST", path, self._login_v1)
        for path in ("/api/login", "/api/login/v2"):
            add("POST", path, self._login_v0)
        for path in ("/api/v2/verify/2fa", "/v2/verify/2fa"):
            add("POST", path, self._verify)
        for path in ("/api/v1.0/logout", "/v1.0/logout", "/api/v2/logout", "/v2/logout"):
            add("POST", path, self._logout)
        for path in ("/api/getprofile", "/api/appinit"):
            add("GET", path, self._profile)
        add("POST", "/api/profile/changebalance", self._change_balance)
        add("GET", "/api/lang/route-translations", self._translations)
        add("*", "/api/v1/events", self._telemetry)
        add("GET", "/echo/websocket", self._websocket)
        return app

    @web.middleware
    async def _outage(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self._shared.faults.is_out(self._platform.brand.name):
            return web.Response(status=503, text="Service Unavailable")
        return await handler(request)

    # ---- login -------------------------------------------------------------------------------------------------

    async def _login(self, request: web.Request) -> web.Response:
        fields = await _fields(request)
        email = normalise(fields["identifier"])
        for _, delay in self._shared.faults.strike(
            Point.LOGIN, self._platform.brand.name, email, kinds={FaultKind.LATENCY}
        ):
            await asyncio.sleep(delay)
        result = self.desk.log_in(email, fields["password"], request.remote or "", fields["token"])
        log.info("login", brand=self._platform.brand.name, result=type(result).__name__)
        match result:
            case LoggedIn(account, token):
                body = {
                    "code": "success",
                    "company_id": self._platform.brand.company_id,
                    "created_at": int(self._shared.clock()),
                    "ssid": token,
                    "token": token,
                    "user_id": account.user_id,
                }
                return _with_ssid(_json(body), token)
            case InvalidCredentials():
                return _json({"code": "invalid_credentials", "message": WRONG}, 401)
            case Throttled(ttl):
                minutes = -(-ttl // 60)
                text = f"The number of requests has been exceeded. Try again in {minutes} minutes."
                return _json({"code": "requests_limit_exceeded", "message": text, "ttl": ttl}, 429)
            case SecondFactorNeeded(token):
                body = {"code": "verify", "method": METHODS[0], "token": token, "available_methods": list(METHODS)}
                return _json(body)
            case _:
                assert_never(result)

    async def _login_v1(self, request: web.Request) -> web.Response:
        """The obsolete API, without a second factor."""
        fields = await _fields(request)
        result = self.desk.log_in(fields["identifier"] or fields["email"], fields["password"], request.remote or "")
        match result:
            case LoggedIn(_, token):
                return _with_ssid(_json({"data": {"ssid": token}}), token)
            case Throttled(ttl):
                return _json({"data": {"ttl": ttl}, "errors": [{"code": 301, "title": "Login limit exceeded"}]}, 429)
            case _:
                return _json({"errors": [{"code": 202, "title": "Invalid credentials"}]}, 403)

    async def _login_v0(self, request: web.Request) -> web.Response:
        """The oldest API: what counts is the cookie, and the HTTP status on failure."""
        fields = await _fields(request)
        result = self.desk.log_in(fields["email"] or fields["identifier"], fields["password"], request.remote or "")
        if isinstance(result, LoggedIn):
            return _with_ssid(_json(api_result({})), result.token)
        status = 429 if isinstance(result, Throttled) else 403
        return _json({"isSuccessful": False, "message": [WRONG], "result": None}, status)

    async def _verify(self, request: web.Request) -> web.Response:
        fields = await _fields(request)
        if fields["code"]:
            passed = self.desk.check_code(fields["token"], fields["code"])
            if passed is None:
                return _json({"code": "invalid_code", "message": "The code is wrong or has expired."}, 400)
            return _json({"code": "success", "token": passed})
        if fields["method"] not in METHODS:
            text = "This verification method is not supported. Please choose another one."
            return _json({"code": "method_not_supported", "message": text}, 400)
        sent = self.desk.send_code(fields["token"])
        if sent is None:
            return _json({"code": "invalid_token", "message": "The token is wrong or has expired."}, 400)
        return _json({"code": "success", "token": sent})

    async def _logout(self, request: web.Request) -> web.Response:
        token = request.cookies.get("ssid") or (await _fields(request))["ssid"]
        if token:
            self._platform.accounts.revoke(token)
        response = _json({"code": "success", "isSuccessful": True})
        response.del_cookie("ssid")
        return response

    # ---- the site's old API --------------------------------------------------------------------------------------

    async def _profile(self, request: web.Request) -> web.Response:
        account = self._platform.accounts.of_token(request.cookies.get("ssid", ""))
        if account is None:
            return _json({"isSuccessful": False, "message": ["Forbidden"], "result": None}, 403)
        return _json(api_result(profile_shape(account, self._platform.brand.company_id, with_balances=True)))

    async def _change_balance(self, request: web.Request) -> web.Response:
        account = self._platform.accounts.of_token(request.cookies.get("ssid", ""))
        wanted = (await _fields(request))["balance_id"]
        if account is None or not wanted.isdecimal() or not select_balance(account, int(wanted)):
            return _json({"isSuccessful": False, "message": ["Forbidden"], "result": None}, 403)
        return _json(api_result({}))

    async def _translations(self, request: web.Request) -> web.Response:
        language = request.query.get("route", "en")
        names = {f"front.{listing.asset.ticker}": listing.asset.label for listing in self._platform.listings.all()}
        return _json({"isSuccessful": True, "result": {language: names}})

    async def _telemetry(self, _request: web.Request) -> web.Response:
        return _json({"isSuccessful": True})

    # ---- WebSocket -----------------------------------------------------------------------------------------------

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False, max_msg_size=MAX_FRAME, timeout=2.0)
        await socket.prepare(request)
        transport = request.transport
        if transport is None:
            return socket
        connection = Connection(
            next(self._numbers),
            self._platform.brand.name,
            socket,
            transport,
            faults=self._shared.faults,
            timers=self._shared.timers,
            clock=self._shared.clock,
            delay=self._shared.settings.ack_delay,
        )
        hub = self._platform.hub
        hub.add(connection)
        # The clock starts before the login; nobody has to wait for the next whole second.
        connection.send(time_sync(self._shared.clock() + self._shared.faults.clock_skew(self._platform.brand.name, "")))
        try:
            await connection.serve(self._router.handle)
        finally:
            hub.remove(connection)
        return socket


def _json(body: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=frames.encode(body), status=status, content_type="application/json")


def _with_ssid(response: web.Response, token: str) -> web.Response:
    # Neither Domain nor Secure: clients would drop the cookie on a loopback address.
    response.set_cookie("ssid", token, max_age=SSID_LIFE, path="/")
    return response


class _Fields(dict[str, str]):
    """The fields of a body; what is absent is empty."""

    def __missing__(self, _key: str) -> str:
        return ""


async def _fields(request: web.Request) -> _Fields:
    """Read a body, form-encoded or JSON."""
    raw = await request.read()
    if request.content_type in ("application/x-www-form-urlencoded", "multipart/form-data"):
        form = await request.post()
        return _Fields({key: value for key, value in form.items() if isinstance(value, str)})
    found = frames.decode_object(msgspec.Raw(raw))
    return _Fields({key: str(value) for key, value in found.items() if isinstance(value, str | int)})
