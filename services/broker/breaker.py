"""Login breakers: how many logins we let reach a broker, by account and by egress address.

The brokers ban an address for 10 to 60 minutes after about five wrong logins in a row. So one account gets at most
``ACCOUNT_ATTEMPTS`` logins without a success in a window, and all accounts behind one address together never have more
than ``ADDRESS_ATTEMPTS`` wrong or unanswered ones in a row: whoever comes when that many are under way waits a moment.
The numbers are chosen so that one bad account alone cannot use the address up. When the broker itself throttles, the
account rests for as long as it says; the whole address rests only once two accounts were told so.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from services.broker.domain.errors import LoginThrottledError
from services.broker.domain.ports import LoginPermit
from services.broker.domain.values import Broker
from services.runtime.clock import Clock

ACCOUNT_ATTEMPTS: Final = 3
ADDRESS_ATTEMPTS: Final = 4
WINDOW: Final = 600
"""Seconds, the shorter end of the brokers' bans."""
LOGIN_TIME: Final = 30
"""Seconds after which a login that nobody reported back counts as over."""
ROOM_WAIT: Final = 10.0
"""Seconds to wait for other logins of the address to end."""
ROOM_POLL: Final = 0.05

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Answer of the counting rule: ``granted``, or how many seconds to wait, and whether a moment may be enough."""

    granted: bool
    retry_after: int = 0
    crowded: bool = False
    """The address is only busy: ask again in a moment."""


class Counters(Protocol):
    """Where attempts are counted. Each method is atomic."""

    async def reserve(self, account: str, address: str, attempt: str) -> Verdict:
        """Count an attempt if both limits allow it."""
        ...

    async def succeed(self, account: str, address: str, attempt: str) -> None:
        """End an attempt and forget the failures before it."""
        ...

    async def fail(self, account: str, address: str, attempt: str) -> None:
        """End an attempt that the broker may count against us."""
        ...

    async def ban(self, account: str, address: str, attempt: str, seconds: int) -> None:
        """End an attempt that the broker throttled; grant none to the account for a time."""
        ...


class _Permit:
    def __init__(self, counters: Counters, account: str, address: str, attempt: str) -> None:
        self._counters = counters
        self._key = (account, address, attempt)

    async def succeeded(self) -> None:
        await self._counters.succeed(*self._key)

    async def refused(self) -> None:
        await self._counters.fail(*self._key)

    async def throttled(self, seconds: int) -> None:
        await self._counters.ban(*self._key, seconds)

    async def abandoned(self) -> None:
        await self._counters.fail(*self._key)


class Breaker:
    """Grants logins by shared counters.

    Args:
        counters: Shared by all processes behind the same address.
        egress: Name of the address that this process's connections leave from.
        clock: Bounds the wait for room.
        new_id: Makes ids of attempts.
    """

    def __init__(self, counters: Counters, egress: str, clock: Clock, new_id: Callable[[], str]) -> None:
        self._counters = counters
        self._egress = egress
        self._clock = clock
        self._new_id = new_id

    async def acquire(self, broker: Broker, email: str) -> LoginPermit:
        """Reserve one login attempt; see ``LoginBreaker``."""
        # The address is a key of a shared store: a digest says nothing to whoever reads it there.
        digest = hashlib.sha256(email.strip().lower().encode()).hexdigest()[:32]
        account, address = f"{broker}:{digest}", f"{broker}:{self._egress}"
        attempt = self._new_id()
        deadline = self._clock.monotonic() + ROOM_WAIT
        while True:
            verdict = await self._counters.reserve(account, address, attempt)
            if verdict.granted:
                return _Permit(self._counters, account, address, attempt)
            if not verdict.crowded or self._clock.monotonic() >= deadline:
                _log.info("login_held_back", broker=broker, retry_after=verdict.retry_after, crowded=verdict.crowded)
                raise LoginThrottledError(max(verdict.retry_after, 1))
            await self._clock.sleep(ROOM_POLL)


class LocalCounters:
    """Counts within one process: the default without Redis, and what remains when Redis does not answer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[str, tuple[int, float]] = {}
        """Attempts without a success by account or address, and when they are forgotten."""
        self._running: dict[str, dict[str, float]] = {}
        self._bans: dict[str, float] = {}
        """Until when accounts and addresses rest."""
        self._suspects: dict[str, tuple[str, float]] = {}
        """The account that was throttled first, by address, and when that is forgotten."""

    async def reserve(self, account: str, address: str, attempt: str) -> Verdict:
        """Count an attempt if both limits allow it."""
        now = self._clock.monotonic()
        self._forget(now)
        for key in (account, address):
            if key in self._bans:
                return Verdict(granted=False, retry_after=_seconds(self._bans[key] - now))
        tried, until = self._failures.get(account, (0, 0.0))
        if tried >= ACCOUNT_ATTEMPTS:
            return Verdict(granted=False, retry_after=_seconds(until - now))
        failed, until = self._failures.get(address, (0, 0.0))
        if failed >= ADDRESS_ATTEMPTS:
            return Verdict(granted=False, retry_after=_seconds(until - now))
        running = self._running.setdefault(address, {})
        if failed + len(running) >= ADDRESS_ATTEMPTS:
            return Verdict(granted=False, retry_after=1, crowded=True)
        running[attempt] = now + LOGIN_TIME
        self._count(account, now)
        return Verdict(granted=True)

    async def succeed(self, account: str, address: str, attempt: str) -> None:
        """End an attempt and forget the failures before it."""
        self._failures.pop(account, None)
        self._failures.pop(address, None)
        self._running.get(address, {}).pop(attempt, None)

    async def fail(self, account: str, address: str, attempt: str) -> None:  # noqa: ARG002 - counted at its start
        """End an attempt that the broker may count against us."""
        self._running.get(address, {}).pop(attempt, None)
        self._count(address, self._clock.monotonic())

    async def ban(self, account: str, address: str, attempt: str, seconds: int) -> None:
        """End an attempt that the broker throttled; grant none to the account for a time."""
        self._running.get(address, {}).pop(attempt, None)
        until = self._clock.monotonic() + seconds
        self._bans[account] = until
        first, _ = self._suspects.setdefault(address, (account, until))
        if first != account:
            self._bans[address] = until

    def _count(self, key: str, now: float) -> None:
        count, until = self._failures.get(key, (0, now + WINDOW))
        self._failures[key] = (count + 1, until)

    def _forget(self, now: float) -> None:
        self._failures = {key: value for key, value in self._failures.items() if value[1] > now}
        self._bans = {key: until for key, until in self._bans.items() if until > now}
        self._suspects = {key: value for key, value in self._suspects.items() if value[1] > now}
        for running in self._running.values():
            for attempt in [a for a, until in running.items() if until <= now]:
                del running[attempt]


def _seconds(left: float) -> int:
    return max(int(left) + 1, 1)


_RESERVE: Final = """
local account, address, running = KEYS[1], KEYS[2], KEYS[3]
local now, attempt = tonumber(ARGV[1]), ARGV[2]
local banned = math.max(redis.call('TTL', KEYS[4]), redis.call('TTL', KEYS[5]))
if banned > 0 then return {0, banned, 0} end
if tonumber(redis.call('GET', account) or '0') >= tonumber(ARGV[3]) then return {0, redis.call('TTL', account), 0} end
local failed = tonumber(redis.call('GET', address) or '0')
if failed >= tonumber(ARGV[4]) then return {0, redis.call('TTL', address), 0} end
redis.call('ZREMRANGEBYSCORE', running, '-inf', now)
if failed + redis.call('ZCARD', running) >= tonumber(ARGV[4]) then return {0, 1, 1} end
redis.call('ZADD', running, now + tonumber(ARGV[6]), attempt)
redis.call('EXPIRE', running, tonumber(ARGV[6]) * 2)
if redis.call('INCR', account) == 1 then redis.call('EXPIRE', account, tonumber(ARGV[5])) end
return {1, 0, 0}
"""
_SUCCEED: Final = "redis.call('DEL', KEYS[1], KEYS[2]) return redis.call('ZREM', KEYS[3], ARGV[1])"
_FAIL: Final = """
redis.call('ZREM', KEYS[3], ARGV[1])
if redis.call('INCR', KEYS[2]) == 1 then redis.call('EXPIRE', KEYS[2], tonumber(ARGV[2])) end
return 1
"""
_BAN: Final = """
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('SET', KEYS[4], '1', 'EX', tonumber(ARGV[2]))
local first = redis.call('GET', KEYS[6])
if not first then redis.call('SET', KEYS[6], KEYS[1], 'EX', tonumber(ARGV[2]))
elseif first ~= KEYS[1] then redis.call('SET', KEYS[5], '1', 'EX', tonumber(ARGV[2])) end
return 1
"""


class ScriptRunner(Protocol):
    """The one thing that is wanted of a Redis client."""

    async def run(self, script: str, keys: list[str], args: list[str | int | float]) -> list[int]:
        """Run a Lua script and return its integers.

        Raises:
            StoreUnavailableError: It is not known whether it ran.
        """
        ...


class StoreUnavailableError(Exception):
    """The shared store did not answer."""


class SharedCounters:
    """Counts in Redis with one script per step, so that all processes behind an address see one count.

    While Redis does not answer, the process counts by itself: logins go on, held back by the local limits.
    """

    def __init__(self, runner: ScriptRunner, fallback: Counters, wall_clock: Callable[[], float]) -> None:
        self._runner = runner
        self._fallback = fallback
        self._wall_clock = wall_clock

    async def reserve(self, account: str, address: str, attempt: str) -> Verdict:
        """Count an attempt if both limits allow it."""
        args: list[str | int | float] = [
            self._wall_clock(),
            attempt,
            ACCOUNT_ATTEMPTS,
            ADDRESS_ATTEMPTS,
            WINDOW,
            LOGIN_TIME,
        ]
        try:
            granted, retry_after, crowded = await self._runner.run(_RESERVE, _keys(account, address), args)
        except StoreUnavailableError:
            _log.warning("login_breaker_local")
            return await self._fallback.reserve(account, address, attempt)
        return Verdict(bool(granted), retry_after, bool(crowded))

    async def succeed(self, account: str, address: str, attempt: str) -> None:
        """End an attempt and forget the failures before it."""
        await self._fallback.succeed(account, address, attempt)
        await self._report(_SUCCEED, _keys(account, address), [attempt])

    async def fail(self, account: str, address: str, attempt: str) -> None:
        """End an attempt that the broker may count against us."""
        await self._fallback.fail(account, address, attempt)
        await self._report(_FAIL, _keys(account, address), [attempt, WINDOW])

    async def ban(self, account: str, address: str, attempt: str, seconds: int) -> None:
        """End an attempt that the broker throttled; grant none to the account for a time."""
        await self._fallback.ban(account, address, attempt, seconds)
        await self._report(_BAN, _keys(account, address), [attempt, max(seconds, 1)])

    async def _report(self, script: str, keys: list[str], args: list[str | int | float]) -> None:
        try:
            await self._runner.run(script, keys, args)
        except StoreUnavailableError:
            # The count in Redis stays as strict as it was; its keys expire by themselves.
            _log.warning("login_breaker_unreported")


def _keys(account: str, address: str) -> list[str]:
    # One hash tag, so that a cluster keeps them together.
    return [
        f"{{broker-login}}:account:{account}",
        f"{{broker-login}}:address:{address}",
        f"{{broker-login}}:running:{address}",
        f"{{broker-login}}:rest:account:{account}",
        f"{{broker-login}}:rest:address:{address}",
        f"{{broker-login}}:suspect:{address}",
    ]
