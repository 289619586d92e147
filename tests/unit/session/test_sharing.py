"""How many sessions a replica takes and gives away."""

from services.session.domain.values import SessionKey
from services.session.use_cases.sharing import FairShare

SETTLE = 15.0


def keys(*numbers: int) -> list[SessionKey]:
    return [SessionKey(str(number)) for number in numbers]


def a_share(*replicas: str, at: float = 0.0) -> FairShare:
    share = FairShare(SETTLE)
    share.see(at, replicas)
    return share


def test_a_replica_with_less_than_its_share_takes_all_that_is_free_at_once() -> None:
    share = a_share("us", "them")
    assert share.to_take(0.0, keys(1, 2, 3), held=4, total=10) == keys(1, 2, 3)


def test_a_replica_with_its_share_takes_only_what_nobody_else_took() -> None:
    share = a_share("us", "them")
    assert share.to_take(0.0, keys(1, 2), held=5, total=10) == []
    assert share.to_take(1.0, keys(2, 3), held=5, total=10) == keys(2)


def test_alone_it_takes_everything_and_gives_nothing() -> None:
    share = a_share("us")
    share.see(100.0, ["us"])
    assert share.to_take(100.0, keys(1), held=999, total=1000) == keys(1)
    assert share.to_give(100.0, held=1000, total=1000) == 0


def test_a_replica_that_has_not_seen_any_other_takes_everything() -> None:
    assert FairShare(SETTLE).to_take(0.0, keys(1, 2), held=0, total=2) == keys(1, 2)


def test_it_gives_to_a_replica_that_has_settled_and_not_before() -> None:
    share = a_share("us")
    share.see(100.0, ["us", "them"])
    assert share.to_give(100.0, held=8, total=8) == 0
    share.see(100.0 + SETTLE, ["us", "them"])
    assert share.to_give(100.0 + SETTLE, held=8, total=8) == 4


def test_a_replica_that_came_back_under_another_name_has_to_settle_again() -> None:
    share = a_share("us", "them")
    share.see(SETTLE, ["us", "them again"])
    assert share.to_give(SETTLE, held=8, total=8) == 0


def test_it_gives_a_few_at_a_time() -> None:
    share = a_share("us", "them")
    share.see(SETTLE, ["us", "them"])
    assert share.to_give(SETTLE, held=1000, total=1000) == 10


def test_an_odd_session_does_not_move_to_and_fro() -> None:
    share = a_share("us", "them")
    share.see(SETTLE, ["us", "them"])
    assert (share.to_give(SETTLE, held=2, total=3), share.to_give(SETTLE, held=3, total=3)) == (0, 1)


def test_a_tenth_too_many_stays() -> None:
    share = a_share("us", "them")
    share.see(SETTLE, ["us", "them"])
    assert (share.to_give(SETTLE, held=110, total=200), share.to_give(SETTLE, held=111, total=200)) == (0, 10)


def test_where_somebody_poorer_does_not_take_nothing_is_given_for_a_minute() -> None:
    share = a_share("us", "them")
    share.see(20.0, ["us", "them"])
    assert share.to_give(20.0, held=4, total=4) == 2
    assert share.to_take(21.0, keys(1, 2), held=2, total=4) == []
    assert share.to_take(22.0, keys(1, 2), held=2, total=4) == keys(1, 2)
    assert share.to_give(22.0, held=4, total=4) == 0
    assert share.to_give(81.0, held=4, total=4) == 0
    assert share.to_give(82.0, held=4, total=4) == 2


def test_replicas_settle_on_fair_shares_and_a_dead_weight_does_not_keep_sessions_moving() -> None:
    """Three replicas, one of which is counted and takes nothing for three minutes: then it does, and all come to rest."""
    names = ("one", "two", "idle")
    shares = {name: FairShare(SETTLE) for name in names}
    held: dict[str, list[SessionKey]] = {"one": keys(*range(45)), "two": keys(*range(45, 90)), "idle": []}
    free: list[SessionKey] = []
    moves = {"idle": 0, "awake": 0}
    for second in range(600):
        for number, name in enumerate(names):
            now = second + number / 3
            share, mine, total = shares[name], held[name], 90
            share.see(now, names)
            if name == "idle" and second < 180:
                continue
            taken = share.to_take(now, list(free), held=len(mine), total=total)
            mine += taken
            free = [key for key in free if key not in taken]
            for _ in range(share.to_give(now, held=len(mine), total=total)):
                free.append(mine.pop(0))
                moves["idle" if second < 180 else "awake"] += 1
    assert moves["idle"] < 90  # a hundred and eighty seconds in which each session could have moved a hundred times
    assert max(map(len, held.values())) <= 33  # thirty and a tenth
    assert moves["awake"] < 60
    assert not free
