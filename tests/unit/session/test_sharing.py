"""How many sessions a replica takes and gives away."""

from services.session.domain.values import SessionKey
from services.session.use_cases.sharing import FairShare

SETTLE = 15.0


def keys(*numbers: int) -> list[SessionKey]:
    return [SessionKey(str(number)) for number in numbers]


def a_share(*living: str, total: int, at: float = 0.0) -> FairShare:
    share = FairShare(SETTLE)
    share.look(at, living, total)
    return share


def test_a_replica_with_less_than_its_share_takes_all_that_is_free_at_once() -> None:
    share = a_share("us", "them", total=10)
    assert share.to_take(0.0, keys(1, 2, 3), held=4) == keys(1, 2, 3)


def test_a_replica_with_its_share_takes_only_what_nobody_else_took() -> None:
    share = a_share("us", "them", total=10)
    assert share.to_take(0.0, keys(1, 2), held=5) == []
    assert share.to_take(1.0, keys(2, 3), held=5) == keys(2)


def test_alone_it_takes_everything_and_gives_nothing() -> None:
    share = a_share("us", total=1000)
    share.look(100.0, ["us"], 1000)
    assert share.to_take(100.0, keys(1), held=999) == keys(1)
    assert share.to_give(100.0, held=1000) == 0


def test_it_gives_to_a_replica_that_has_settled_and_not_before() -> None:
    share = a_share("us", total=8)
    share.look(100.0, ["us", "them"], 8)
    assert share.to_give(100.0, held=8) == 0
    share.look(100.0 + SETTLE, ["us", "them"], 8)
    assert share.to_give(100.0 + SETTLE, held=8) == 4


def test_a_replica_that_came_back_under_another_name_has_to_settle_again() -> None:
    share = a_share("us", "them", total=8)
    share.look(SETTLE, ["us", "them again"], 8)
    assert share.to_give(SETTLE, held=8) == 0


def test_it_gives_a_few_at_a_time() -> None:
    share = a_share("us", "them", total=1000)
    share.look(SETTLE, ["us", "them"], 1000)
    assert share.to_give(SETTLE, held=1000) == 10


def test_an_odd_session_does_not_move_to_and_fro() -> None:
    share = a_share("us", "them", total=3)
    share.look(SETTLE, ["us", "them"], 3)
    assert (share.to_give(SETTLE, held=2), share.to_give(SETTLE, held=3)) == (0, 1)


def test_a_tenth_too_many_stays() -> None:
    share = a_share("us", "them", total=200)
    share.look(SETTLE, ["us", "them"], 200)
    assert (share.to_give(SETTLE, held=110), share.to_give(SETTLE, held=111)) == (0, 10)


def test_who_does_not_take_what_is_given_is_given_nothing_for_a_minute() -> None:
    share = a_share("us", "them", total=4)
    share.look(20.0, ["us", "them"], 4)
    assert share.to_give(20.0, held=4) == 2
    share.gave(keys(1, 2))
    assert share.to_take(21.0, keys(1, 2), held=2) == []
    assert share.to_take(22.0, keys(1, 2), held=2) == keys(1, 2)
    assert share.to_give(22.0, held=4) == 0
    assert share.to_give(81.0, held=4) == 0
    assert share.to_give(82.0, held=4) == 2


def test_what_another_took_does_not_count_against_it() -> None:
    share = a_share("us", "them", total=4)
    share.look(20.0, ["us", "them"], 4)
    share.gave(keys(1, 2))
    assert share.to_take(21.0, [], held=2) == []
    # Its new holder dies later: taking it up then is no taking back.
    assert share.to_take(30.0, keys(1), held=1) == keys(1)
    assert share.to_give(30.0, held=4) == 2
