"""The fault script: what goes wrong, for whom, and when. Deterministic by seed, changeable while it runs."""

import itertools
import random
from collections.abc import Callable, Container, Iterable
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from simulator.exchange.orders import Outcome


class FaultKind(StrEnum):
    """What can go wrong. The comment of each says at which point it strikes and which fields it reads."""

    LOST = "lost"
    """A frame is never sent. Reads ``on``."""
    LATE = "late"
    """A frame is sent ``seconds`` (plus up to ``jitter``) later, others overtake it. Reads ``on``."""
    DUPLICATE = "duplicate"
    """A frame is sent 1 + ``count`` times. Reads ``on``."""
    OUT_OF_ORDER = "out_of_order"
    """A frame is sent after the next one (at the latest after ``seconds``, or 1 s). Reads ``on``."""
    MALFORMED = "malformed"
    """The frame is cut in half; with ``text``, that is sent instead. Reads ``on``."""
    UNKNOWN_FRAME = "unknown_frame"
    """A frame of a name that no client knows (or ``text``) goes before it. Reads ``on``."""
    LATENCY = "latency"
    """A request is handled ``seconds`` (plus up to ``jitter``) later than usual, and those behind it wait.

    With ``on`` ``login`` it is the HTTP login that waits.
    """
    DISCONNECT_BEFORE = "disconnect_before"
    """The socket is cut and the request is not carried out: an order is not booked."""
    DISCONNECT_AFTER = "disconnect_after"
    """The request is carried out, an order is booked; then the socket is cut without an answer."""
    PAYOUT_CHANGED = "payout_changed"
    """An order is refused with 4117."""
    SUSPENDED = "suspended"
    """An order is refused with 4119."""
    CLOSED = "closed"
    """An order is refused because the asset is not available at the moment."""
    NO_MONEY = "no_money"
    """An order is refused for lack of funds."""
    TOO_LATE = "too_late"
    """An order is refused because the time for purchasing is over."""
    REJECTED_BY_RISKS = "rejected_by_risks"
    """An order is refused by the broker's risk control."""
    FORCED_OUTCOME = "forced_outcome"
    """An order ends with ``outcome`` whatever the price does."""
    EARLY_SETTLEMENT = "early_settlement"
    """An order is settled ``seconds`` after it was booked."""
    LOGIN_THROTTLED = "login_throttled"
    """A login is answered 429 with ``ttl``."""
    TWO_FACTOR = "two_factor"
    """A login with the right password asks for the second factor."""
    TOKEN_EXPIRED = "token_expired"  # noqa: S105  # the name of a fault
    """When a request comes, the account's tokens become worthless and its sockets are closed."""
    CLOCK_SKEW = "clock_skew"
    """The server's clock that the account is told is off by ``seconds``. Holds while the rule is there."""
    OUTAGE = "outage"
    """Sockets are cut and everything is answered 503. Holds while the rule is there, or for ``seconds``."""


class Point(StrEnum):
    """Where a rule is asked."""

    ACK = "ack"
    REPLY = "reply"
    PUSH = "push"
    REQUEST = "request"
    ORDER = "order"
    LOGIN = "login"
    STATE = "state"


FRAME_KINDS: Final = frozenset(
    {
        FaultKind.LOST,
        FaultKind.LATE,
        FaultKind.DUPLICATE,
        FaultKind.OUT_OF_ORDER,
        FaultKind.MALFORMED,
        FaultKind.UNKNOWN_FRAME,
    }
)
ALL_KINDS: Final = frozenset(FaultKind)
_POINTS: Final = {
    FaultKind.LATENCY: Point.REQUEST,
    FaultKind.DISCONNECT_BEFORE: Point.REQUEST,
    FaultKind.DISCONNECT_AFTER: Point.REQUEST,
    FaultKind.TOKEN_EXPIRED: Point.REQUEST,
    FaultKind.LOGIN_THROTTLED: Point.LOGIN,
    FaultKind.TWO_FACTOR: Point.LOGIN,
    FaultKind.CLOCK_SKEW: Point.STATE,
    FaultKind.OUTAGE: Point.STATE,
}


class FaultRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One rule. Without selectors it strikes everything that passes its point."""

    kind: FaultKind
    id: str = ""
    """Chosen by the script if empty."""
    on: Point | None = None
    """Frame faults: ``ack``, ``reply`` or ``push``; ``reply`` if absent."""
    brand: str | None = None
    email: str | None = None
    """Pattern with * and ?; absent means everybody."""
    name: str | None = None
    """Pattern for the request's method without its service (``open-option``), or the push's name (``option-closed``)."""
    probability: float = 1.0
    nth: int | None = None
    """Strikes only the n-th message that it fits, counting from 1."""
    times: int | None = None
    """Strikes at most so often."""
    per_account: bool = False
    """Count ``nth`` and ``times`` for each account by itself."""
    starts_in: float = 0.0
    lasts: float | None = None
    """Seconds from when the rule was added until it begins, and from then until it ends."""
    seconds: float = 0.0
    jitter: float = 0.0
    count: int = 1
    ttl: int = 600
    outcome: Outcome = Outcome.LOST
    commission: int | None = None
    """The commission that a ``payout_changed`` names; one more than the real one if absent."""
    text: str | None = None

    @property
    def point(self) -> Point:
        """Where the rule is asked."""
        if self.kind in FRAME_KINDS:
            return self.on or Point.REPLY
        if self.kind is FaultKind.LATENCY and self.on is Point.LOGIN:
            return Point.LOGIN
        return _POINTS.get(self.kind, Point.ORDER)


class _Armed:
    """A rule with its counters and its own stream of chance."""

    def __init__(self, rule: FaultRule, seed: int, added: float) -> None:
        self.rule = rule
        self.begins = added + rule.starts_in
        lasts = rule.seconds or None if rule.kind is FaultKind.OUTAGE and rule.lasts is None else rule.lasts
        self.ends = float("inf") if lasts is None else self.begins + lasts
        self._random = random.Random(f"{seed}/{rule.id}")
        self._seen: dict[str, int] = {}
        self._struck: dict[str, int] = {}

    def fits(self, brand: str, email: str, name: str, now: float) -> bool:
        rule = self.rule
        return (
            self.begins <= now < self.ends
            and (rule.brand is None or rule.brand == brand)
            and (rule.email is None or fnmatchcase(email, rule.email))
            and (rule.name is None or fnmatchcase(name, rule.name))
        )

    def strikes(self, email: str) -> bool:
        """Count a message that fits and decide."""
        rule, key = self.rule, email if self.rule.per_account else ""
        seen = self._seen[key] = self._seen.get(key, 0) + 1
        struck = self._struck.get(key, 0)
        if rule.nth is not None and seen != rule.nth:
            return False
        if rule.times is not None and struck >= rule.times:
            return False
        if rule.probability < 1.0 and self._random.random() >= rule.probability:
            return False
        self._struck[key] = struck + 1
        return True

    def delay(self) -> float:
        return self.rule.seconds + self._random.random() * self.rule.jitter

    @property
    def struck(self) -> int:
        return sum(self._struck.values())


class FaultScript:
    """The rules in force. Asking a point for which there is no rule costs one look-up."""

    def __init__(self, seed: int, clock: Callable[[], float]) -> None:
        self._seed = seed
        self._clock = clock
        self._armed: dict[Point, list[_Armed]] = {}
        self._ids = itertools.count(1)

    def add(self, rules: Iterable[FaultRule]) -> list[str]:
        """Put rules in force and return their ids; a rule with a known id replaces the old one.

        Raises:
            ValueError: A frame fault names a point that is no frame.
        """
        rules = list(rules)
        for rule in rules:
            if rule.kind in FRAME_KINDS and rule.point not in (Point.ACK, Point.REPLY, Point.PUSH):
                raise ValueError(f"on must be ack, reply or push, not {rule.point}")
        added = []
        for rule in rules:
            named = rule if rule.id else msgspec.structs.replace(rule, id=f"fault-{next(self._ids)}")
            self.remove(named.id)
            self._armed.setdefault(named.point, []).append(_Armed(named, self._seed, self._clock()))
            added.append(named.id)
        return added

    def remove(self, rule_id: str) -> bool:
        """Lift a rule; tells whether it was in force."""
        for point, rules in list(self._armed.items()):
            left = [armed for armed in rules if armed.rule.id != rule_id]
            if len(left) < len(rules):
                if left:
                    self._armed[point] = left
                else:
                    del self._armed[point]
                return True
        return False

    def clear(self) -> None:
        """Lift all rules."""
        self._armed.clear()

    def rules(self) -> list[tuple[FaultRule, int]]:
        """Return the rules in force, each with how often it has struck."""
        return [(armed.rule, armed.struck) for rules in self._armed.values() for armed in rules]

    def has(self, point: Point) -> bool:
        """Tell whether any rule is asked at a point."""
        return point in self._armed

    def strike(
        self, point: Point, brand: str, email: str, name: str = "", kinds: Container[FaultKind] = ALL_KINDS
    ) -> list[tuple[FaultRule, float]]:
        """Return the rules (of some kinds) that strike this message, each with the delay it has drawn."""
        rules = self._armed.get(point)
        if rules is None:
            return []
        now = self._clock()
        hits = [
            armed
            for armed in rules
            if armed.rule.kind in kinds and armed.fits(brand, email, name, now) and armed.strikes(email)
        ]
        return [(armed.rule, armed.delay()) for armed in hits]

    def has_state(self) -> bool:
        """Tell whether any clock is off or anything is down."""
        return self.has(Point.STATE)

    def clock_skew(self, brand: str, email: str) -> float:
        """Return by how many seconds the clock that an account is told is off."""
        return sum(rule.seconds for rule in self._holding(FaultKind.CLOCK_SKEW, brand, email))

    def is_out(self, brand: str, email: str = "") -> bool:
        """Tell whether the brand is down, for everybody or for an account."""
        return any(True for _ in self._holding(FaultKind.OUTAGE, brand, email))

    def _holding(self, kind: FaultKind, brand: str, email: str) -> Iterable[FaultRule]:
        now = self._clock()
        for armed in self._armed.get(Point.STATE, ()):
            if armed.rule.kind is kind and armed.fits(brand, email, "", now):
                yield armed.rule
