"""Logging in: passwords, the second factor, and the throttling of those who guess. Knows no HTTP."""

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from simulator.exchange.accounts import Account, Accounts, normalise
from simulator.faults import FaultKind, FaultScript, Point
from simulator.settings import Settings

VERIFICATION_LIFE: Final = 300.0
"""Seconds for which the tokens of the second factor are good."""
METHODS: Final = ("sms", "email")
DESK_FAULTS: Final = frozenset({FaultKind.LOGIN_THROTTLED, FaultKind.TWO_FACTOR})
ATTEMPTS_KEPT: Final = 100_000


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """The login has succeeded."""

    account: Account
    token: str
    """The session token, ssid."""


@dataclass(frozen=True, slots=True)
class InvalidCredentials:
    """Unknown identifier or wrong password; the platform does not tell which."""


@dataclass(frozen=True, slots=True)
class Throttled:
    """Too many attempts; try again in ``ttl`` seconds."""

    ttl: int


@dataclass(frozen=True, slots=True)
class SecondFactorNeeded:
    """The password was right, a code is needed as well."""

    token: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """A login that was tried, for the witness."""

    time: float
    """Unix seconds."""
    email: str
    address: str
    result: str
    """Name of the result's class."""


LoginResult = LoggedIn | InvalidCredentials | Throttled | SecondFactorNeeded


@dataclass(frozen=True, slots=True)
class _Verification:
    """A step of the second factor that has been reached."""

    email: str
    passed: bool
    until: float


class LoginDesk:
    """The login of one brand."""

    def __init__(
        self, brand: str, accounts: Accounts, faults: FaultScript, settings: Settings, clock: Callable[[], float]
    ) -> None:
        self._brand = brand
        self._accounts = accounts
        self._faults = faults
        self._settings = settings
        self._clock = clock
        self._failures: dict[tuple[str, str], int] = {}
        self._banned_until: dict[tuple[str, str], float] = {}
        self._verifications: dict[str, _Verification] = {}
        self.attempts: deque[Attempt] = deque(maxlen=ATTEMPTS_KEPT)

    def log_in(self, identifier: str, password: str, address: str, verified: str = "") -> LoginResult:
        """Try a password.

        Args:
            identifier: The e-mail address.
            password: What the client says the password is.
            address: Where the client calls from; throttling is per identifier and address.
            verified: The token of a passed second factor, if there is one.
        """
        result = self._judge(normalise(identifier), password, address, verified)
        self.attempts.append(Attempt(self._clock(), normalise(identifier), address, type(result).__name__))
        return result

    def _judge(self, email: str, password: str, address: str, verified: str) -> LoginResult:
        key, now = (email, address), self._clock()
        hits = {rule.kind: rule for rule, _ in self._faults.strike(Point.LOGIN, self._brand, email, kinds=DESK_FAULTS)}
        throttle = hits.get(FaultKind.LOGIN_THROTTLED)
        if throttle is not None:
            return Throttled(throttle.ttl)
        banned = self._banned_until.get(key, 0.0) - now
        if banned > 0:
            return Throttled(max(1, round(banned)))
        if "@" not in email or not secrets.compare_digest(password.encode(), self._settings.password.encode()):
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            if failures >= self._settings.login_attempts:
                self._failures.pop(key)
                self._banned_until[key] = now + self._settings.login_ban
            return InvalidCredentials()
        self._failures.pop(key, None)
        if email == self._settings.two_factor_email or FaultKind.TWO_FACTOR in hits:
            passed = self._take(verified)
            if passed is None or not passed.passed or passed.email != email:
                return SecondFactorNeeded(self._verification(email, passed=False))
        account = self._accounts.get_or_create(email)
        return LoggedIn(account, self._accounts.issue_token(account))

    def send_code(self, token: str) -> str | None:
        """Pretend to send a code; returns the next token, or None if this one is worthless."""
        step = self._take(token)
        return None if step is None or step.passed else self._verification(step.email, passed=False)

    def check_code(self, token: str, code: str) -> str | None:
        """Return the token of a passed second factor, or None if code or token is wrong. A wrong code spends no token."""
        if code != self._settings.two_factor_code:
            return None
        step = self._take(token)
        return None if step is None or step.passed else self._verification(step.email, passed=True)

    def reset(self) -> None:
        """Forget failures, bans and half-finished logins."""
        self._failures.clear()
        self._banned_until.clear()
        self._verifications.clear()
        self.attempts.clear()

    def _verification(self, email: str, *, passed: bool) -> str:
        now = self._clock()
        self._verifications = {token: step for token, step in self._verifications.items() if step.until > now}
        token = secrets.token_hex(16)
        self._verifications[token] = _Verification(email, passed, now + VERIFICATION_LIFE)
        return token

    def _take(self, token: str) -> _Verification | None:
        """Spend a token."""
        step = self._verifications.pop(token, None)
        return step if step is not None and step.until > self._clock() else None
