"""The fault script: selectors, counting, chance, time."""

import pytest

from simulator.control import parse_rules
from simulator.faults import FaultKind, FaultRule, FaultScript, Point


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def strikes(script: FaultScript, name: str = "open-option", email: str = "a@x", brand: str = "iq") -> int:
    return len(script.strike(Point.REPLY, brand, email, name))


def lost(**fields: object) -> list[FaultRule]:
    return [FaultRule(FaultKind.LOST, **fields)]  # type: ignore[arg-type]  # the fields are the test's


def test_without_rules_nothing_strikes() -> None:
    script = FaultScript(1, Clock())
    assert not script.has(Point.REPLY)
    assert strikes(script) == 0


def test_selectors_by_brand_email_and_name() -> None:
    script = FaultScript(1, Clock())
    script.add(lost(brand="iq", email="trader*", name="open-*"))
    assert strikes(script, email="trader1@x") == 1
    assert strikes(script, email="other@x") == 0
    assert strikes(script, email="trader1@x", brand="exnova") == 0
    assert strikes(script, email="trader1@x", name="get-candles") == 0


def test_nth_strikes_once_and_counts_only_what_fits() -> None:
    script = FaultScript(1, Clock())
    script.add(lost(name="open-option", nth=2))
    assert [strikes(script), strikes(script, name="get-candles"), strikes(script), strikes(script)] == [0, 0, 1, 0]


def test_times_limits_and_per_account_counts_apart() -> None:
    script = FaultScript(1, Clock())
    script.add(lost(times=1, per_account=True))
    assert [strikes(script, email=e) for e in ("a@x", "a@x", "b@x", "b@x")] == [1, 0, 1, 0]


def test_probability_is_the_same_for_the_same_seed() -> None:
    def pattern(seed: int) -> list[int]:
        script = FaultScript(seed, Clock())
        script.add(lost(id="half", probability=0.5))
        return [strikes(script) for _ in range(200)]

    assert pattern(1) == pattern(1)
    assert pattern(1) != pattern(2)
    assert 70 < sum(pattern(1)) < 130


def test_rule_holds_from_its_start_for_as_long_as_it_lasts() -> None:
    clock = Clock()
    script = FaultScript(1, clock)
    script.add([FaultRule(FaultKind.OUTAGE, brand="iq", starts_in=5, lasts=10)])
    seen = []
    for now in (1000.0, 1005.0, 1014.9, 1015.0):
        clock.now = now
        seen.append((script.is_out("iq"), script.is_out("exnova")))
    assert seen == [(False, False), (True, False), (True, False), (False, False)]


def test_outage_may_say_in_seconds_how_long_it_is() -> None:
    clock = Clock()
    script = FaultScript(1, clock)
    script.add([FaultRule(FaultKind.OUTAGE, seconds=3)])
    assert script.is_out("iq")
    clock.now += 3
    assert not script.is_out("iq")


def test_clock_skew_is_per_account() -> None:
    script = FaultScript(1, Clock())
    script.add([FaultRule(FaultKind.CLOCK_SKEW, email="late@x", seconds=-7.5)])
    assert (script.clock_skew("iq", "late@x"), script.clock_skew("iq", "other@x")) == (-7.5, 0)


def test_rule_with_a_known_id_replaces_the_old_one() -> None:
    script = FaultScript(1, Clock())
    script.add(lost(id="a", name="one"))
    script.add(lost(id="a", name="two"))
    assert [rule.name for rule, _ in script.rules()] == ["two"]
    assert script.remove("a")
    assert not script.remove("a")
    assert not script.has(Point.REPLY)


def test_kinds_can_be_asked_for_apart_without_counting_the_others() -> None:
    script = FaultScript(1, Clock())
    script.add([FaultRule(FaultKind.DISCONNECT_BEFORE, nth=1), FaultRule(FaultKind.DISCONNECT_AFTER, nth=1)])
    before = script.strike(Point.REQUEST, "iq", "a@x", "open-option", {FaultKind.DISCONNECT_BEFORE})
    after = script.strike(Point.REQUEST, "iq", "a@x", "open-option", {FaultKind.DISCONNECT_AFTER})
    assert (len(before), len(after)) == (1, 1)


def test_frame_fault_at_a_point_that_is_no_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="on must be"):
        FaultScript(1, Clock()).add([FaultRule(FaultKind.LOST, on=Point.LOGIN)])


def test_rules_are_read_alone_or_as_a_list_and_unknown_fields_are_refused() -> None:
    assert parse_rules(b'{"kind": "late", "on": "push", "seconds": 3}')[0].point is Point.PUSH
    assert len(parse_rules(b'[{"kind": "outage"}, {"kind": "lost"}]')) == 2
    with pytest.raises(ValueError, match="unknown field"):
        parse_rules(b'{"kind": "late", "secnods": 3}')
