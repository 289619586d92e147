"""Login over HTTP: from credentials to a session token, with the second factor in between."""

import asyncio
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
import msgspec
import structlog

from services.broker.connectors.quadcode.brands import Brand
from services.broker.connectors.quadcode.messages import UNREADABLE, LoginReply
from services.broker.domain.errors import (
    BrokerError,
    BrokerUnavailableError,
    InvalidCredentialsError,
    LoginThrottledError,
    TwoFactorInvalidError,
    TwoFactorRequiredError,
)
from services.broker.domain.ports import LoginBreaker
from services.broker.domain.values import Credentials, TwoFactor
from services.runtime.clock import Clock
from services.runtime.secret import Secret

SSID_COOKIE: Final = "ssid"
DEFAULT_BAN: Final = 600
"""Seconds to wait after a 429 that does not say how long."""
REFUSAL_MEMORY: Final = 600.0
"""Seconds for which refused credentials are not tried again."""
HEADLESS_METHODS: Final = ("sms", "email")
"""Second factors that come as a code; "push" is confirmed in the broker's app and cannot be answered by us."""

_reply: Final = msgspec.json.Decoder(LoginReply)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Login:
    """A successful login."""

    token: Secret
    user_id: int | None
    """None if the broker did not say."""


class RefusedCredentials:
    """Remembers for a while which credentials the broker has refused, without holding them.

    A broker counts each repetition against the address, and the answer would be the same.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._until: dict[bytes, float] = {}

    def __contains__(self, credentials: Credentials) -> bool:
        now = self._clock.monotonic()
        self._until = {digest: until for digest, until in self._until.items() if until > now}
        return self._digest(credentials) in self._until

    def add(self, credentials: Credentials) -> None:
        """Remember a refusal."""
        self._until[self._digest(credentials)] = self._clock.monotonic() + REFUSAL_MEMORY

    def _digest(self, credentials: Credentials) -> bytes:
        text = f"{credentials.email.strip().lower()}\0{credentials.password.reveal()}"
        return hmac.digest(self._key, text.encode(), "sha256")


class HttpLogin:
    """Asks a brand for a session token, under the breaker's control.

    Args:
        brand: Where to ask.
        http: A session without a cookie jar: cookies of one user must never reach another one's request.
        breaker: Grants attempts.
        clock: Ages what is remembered of refusals.
        timeout: Seconds per request.
    """

    def __init__(
        self, brand: Brand, http: aiohttp.ClientSession, breaker: LoginBreaker, clock: Clock, timeout: float
    ) -> None:
        self._brand = brand
        self._http = http
        self._breaker = breaker
        self._timeout = timeout
        self._refused = RefusedCredentials(clock)

    async def log_in(self, credentials: Credentials, two_factor: TwoFactor | None) -> Login:
        """Log in once.

        Raises:
            InvalidCredentialsError: The broker refused them.
            TwoFactorRequiredError: The broker wants a code, or has sent the one that was asked for.
            TwoFactorInvalidError: The code or its challenge is not accepted.
            LoginThrottledError: By the broker or by the breaker.
            BrokerUnavailableError: The broker was not reached or its answer makes no sense.
        """
        if credentials in self._refused:
            raise InvalidCredentialsError
        permit = await self._breaker.acquire(self._brand.broker, credentials.email)
        try:
            login = await self._log_in(credentials, two_factor)
        except (TwoFactorRequiredError, TwoFactorInvalidError) as error:
            # A wrong code is a failure in the broker's eyes, a wanted one is not.
            await (permit.succeeded() if isinstance(error, TwoFactorRequiredError) else permit.refused())
            raise
        except InvalidCredentialsError:
            self._refused.add(credentials)
            await permit.refused()
            raise
        except LoginThrottledError as error:
            await permit.throttled(error.retry_after)
            raise
        except (BrokerError, asyncio.CancelledError):
            await permit.abandoned()
            raise
        await permit.succeeded()
        return login

    async def log_out(self, token: Secret) -> None:
        """Make a token worthless. Does its best: an unreachable broker is logged and nothing else."""
        try:
            async with self._http.post(
                self._brand.logout_url,
                cookies={SSID_COOKIE: token.reveal()},
                timeout=aiohttp.ClientTimeout(total=self._timeout),
            ) as response:
                _log.info("logged_out", broker=self._brand.broker, status=response.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            _log.info("log_out_failed", broker=self._brand.broker, error=type(error).__name__)

    async def _log_in(self, credentials: Credentials, two_factor: TwoFactor | None) -> Login:
        body = {"identifier": credentials.email, "password": credentials.password.reveal()}
        if two_factor is not None:
            proof = await self._prove(two_factor)
            if isinstance(proof, Login):
                return proof
            body["token"] = proof.reveal()
        status, reply, cookie = await self._post(self._brand.login_url, body)
        token = reply.ssid or cookie
        if reply.code == "verify":
            raise _two_factor_required(reply)
        if status == 200 and token and reply.code in ("", "success"):
            return Login(Secret(token), reply.user_id)
        raise _failure(status, reply)

    async def _prove(self, two_factor: TwoFactor) -> Secret | Login:
        challenge = two_factor.challenge.reveal()
        if not two_factor.code:
            status, reply, _ = await self._post(
                self._brand.verify_url, {"method": two_factor.method, "token": challenge}
            )
            if reply.code == "success" and reply.token:
                raise TwoFactorRequiredError((two_factor.method,), reply.token)
        else:
            status, reply, cookie = await self._post(
                self._brand.verify_url,
                {"code": two_factor.code.reveal(), "token": challenge, "method": two_factor.method},
            )
            if reply.code == "success":
                if token := reply.ssid or cookie:
                    return Login(Secret(token), reply.user_id)
                if reply.token:
                    return Secret(reply.token)
        if status == 429:
            raise _failure(status, reply)
        if status >= 500 or reply.code == "success":
            raise BrokerUnavailableError
        raise TwoFactorInvalidError

    async def _post(self, url: str, body: Mapping[str, str]) -> tuple[int, LoginReply, str | None]:
        headers = {"Origin": self._brand.origin, "Referer": f"{self._brand.origin}/"}
        try:
            async with self._http.post(
                url,
                json=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self._timeout),
            ) as response:
                content = await response.read()
                cookie = response.cookies.get(SSID_COOKIE)
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise BrokerUnavailableError from error
        try:
            reply = _reply.decode(content)
        except UNREADABLE:
            reply = LoginReply()
        return status, reply, None if cookie is None else cookie.value


def _two_factor_required(reply: LoginReply) -> BrokerError:
    methods = tuple(reply.available_methods) or ((reply.method,) if reply.method else ())
    if not reply.token:
        return BrokerUnavailableError("the broker wants a second factor but gave no challenge")
    return TwoFactorRequiredError(tuple(m for m in methods if m in HEADLESS_METHODS) or methods, reply.token)


def _failure(status: int, reply: LoginReply) -> BrokerError:
    # Numbers are not settled by the sources, so the code decides before the status.
    if reply.code == "invalid_credentials":
        return InvalidCredentialsError()
    if reply.code == "requests_limit_exceeded" or status == 429:
        return LoginThrottledError(max(reply.ttl or DEFAULT_BAN, 1))
    if status == 401 and (reply.code or reply.message):
        return InvalidCredentialsError()
    # A page of a firewall or a gateway says nothing about the credentials.
    return BrokerUnavailableError("the broker's login does not work as expected")
