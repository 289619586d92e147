"""The kinds of faults: each strikes once, lifts what it did, and returns when the part it broke answers again."""

import asyncio
import resource
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.faults.programme.order_wire import SeenOrder
from tests.faults.programme.proxy import Mode
from tests.faults.programme.scene import MissedError, Scene
from tests.faults.programme.world import LEASE
from tests.support.eventually import eventually

_WAKE_NOTICED: Final = 8.0
"""Seconds in which a woken replica must have noticed that its leases are gone."""
_CALM: Final = 1.5
"""Seconds after an engine's return for runners to hold their leases again, so that a takeover can be measured."""
_SCRIPTED: Final = 20.0
"""Seconds that a rule of the simulator is in force at most."""
_SMALL_FILE: Final = 4096


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault."""

    name: str
    strike: Callable[[Scene], Awaitable[None]]
    lane: str
    """``runners`` for what befalls a session replica, ``rest`` for all else; the two lanes strike at the same time."""
    loses: bool = False
    """Whether orders may be lost on their way: what became of them takes up to a minute and a half to prove."""
    available: Callable[[], str] = lambda: ""
    """Says why it cannot be done on this machine; empty if it can."""


# What befalls a session replica


async def kill_session(scene: Scene) -> None:
    """SIGKILL of the replica that runs most sessions."""
    async with scene.ledger_engines:
        replica, since = scene.busiest(), scene.now()
        await scene.down(replica, signal.SIGKILL)
        await scene.taken_over("session killed", replica, since, scene.takeovers)


async def end_session(scene: Scene) -> None:
    """SIGTERM of any replica: it drains and hands over."""
    async with scene.ledger_engines:
        replica, since = scene.either(), scene.now()
        await scene.down(replica, signal.SIGTERM)
        await scene.taken_over("session ended", replica, since, scene.handovers)


async def kill_session_before(scene: Scene) -> None:
    """SIGKILL when SENDING is committed, before the replica hears of it: it has not asked for the order to be sent."""
    replica = scene.busiest()
    struck: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def strike(trade_id: str) -> None:
        scene.world.send(replica, signal.SIGKILL)
        struck.set_result(scene.now())

    async with scene.ledger_engines:
        before = scene.world.progress.deaths.get(replica, 0)
        scene.world.observer.strike_after_mark(replica, strike)
        since = await scene.moment(struck, partial(scene.world.observer.disarm, replica))
        await scene.world.back(replica, before)
        await scene.taken_over("session killed before the write", replica, since, scene.takeovers)


async def kill_session_after(scene: Scene) -> None:
    """SIGKILL of the replica whose order has just left for the broker."""
    struck: asyncio.Future[tuple[str, int, float]] = asyncio.get_running_loop().create_future()

    async def strike(order: SeenOrder) -> bool:
        replica = await scene.sender_of(order)
        if replica is None or struck.done():
            return True
        before = scene.world.progress.deaths.get(replica, 0)
        scene.world.send(replica, signal.SIGKILL)
        struck.set_result((replica, before, scene.now()))
        return True

    async with scene.ledger_engines:
        scene.world.orders.strike_next(strike)
        replica, before, since = await scene.moment(struck, partial(scene.world.orders.disarm, strike))
        await scene.world.back(replica, before)
        await scene.taken_over("session killed after the write", replica, since, scene.takeovers)


async def freeze_session(scene: Scene) -> None:
    """SIGSTOP beyond the lease, then SIGCONT: the others have taken over, and the woken replica must notice."""
    async with scene.ledger_engines:
        replica, since = scene.busiest(), scene.now()
        pid = scene.world.pid(replica)
        held = sum(holder == replica for holder in scene.world.observer.holders().values())
        log = scene.world.folder.logs / f"{replica}.log"
        if pid is None or not scene.world.send(replica, signal.SIGSTOP):
            raise MissedError
        try:
            await scene.taken_over("session frozen", replica, since, scene.takeovers)
            await asyncio.sleep(max(0.0, LEASE * scene.chance.uniform(1.1, 2.0) - (scene.now() - since)))
            read = log.stat().st_size
        finally:
            scene.world.send(replica, signal.SIGCONT)
        if held and not await _says_within(log, read, (b"leases_lapsed", b"leases_lost")):
            scene.notes.append(f"{replica} was frozen beyond its lease with {held} sessions and did not notice")
        scene.stood_down += held


async def cut_ledger(scene: Scene) -> None:
    """All of a replica's connections to PostgreSQL are reset."""
    proxy = scene.world.ledgers[scene.either()]
    for _ in range(scene.chance.randint(1, 3)):
        proxy.cut()
        await asyncio.sleep(scene.chance.uniform(0.1, 0.5))


async def delay_ledger(scene: Scene) -> None:
    """Every piece between a replica and PostgreSQL comes late."""
    proxy = scene.world.ledgers[scene.either()]
    with _mode(proxy.set, Mode.DELAY):
        await asyncio.sleep(scene.chance.uniform(1.5, 3.0))


async def silence_ledger(scene: Scene) -> None:
    """A replica's connections to PostgreSQL are half-open: nothing comes, nothing is closed; then they break, or go on."""
    proxy = scene.world.ledgers[scene.either()]
    with _mode(proxy.set, Mode.BLACK_HOLE):
        await asyncio.sleep(scene.chance.uniform(1.0, 4.0))
        if scene.chance.random() < 0.5:
            proxy.cut()


@asynccontextmanager
async def isolated(scene: Scene, replica: str, mode: Mode) -> AsyncIterator[None]:
    """Let a replica alone not reach PostgreSQL; begins when another one has its sessions."""
    since, proxy = scene.now(), scene.world.ledgers[replica]
    with _mode(proxy.set, mode):
        if mode is Mode.REFUSE:
            proxy.cut()
        await scene.taken_over("session cut off from PostgreSQL", replica, since, scene.cut_offs)
        yield


async def isolate_session(scene: Scene) -> None:
    """The way of one replica to PostgreSQL is refused, or silent, until another one has its sessions."""
    async with (
        scene.ledger_engines,
        isolated(scene, scene.busiest(), scene.chance.choice((Mode.REFUSE, Mode.BLACK_HOLE))),
    ):
        pass


async def swallow_commit(scene: Scene) -> None:
    """A trade's move is committed, and the answer to the COMMIT is lost with the connection."""
    replica = scene.busiest()
    swallowed = scene.world.observer.swallow_commit(replica)
    await scene.moment(swallowed, partial(scene.world.observer.disarm, replica))


# What befalls the rest


async def down(scene: Scene, name: str, number: signal.Signals) -> None:
    """A process ends by a signal."""
    await scene.down(name, number)


async def kill_broker_at_write(scene: Scene, *, passes: bool) -> None:
    """SIGKILL of the broker service while an order's bytes are on its wire; they are lost with it, or they arrive."""
    struck: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def strike(order: SeenOrder) -> bool:
        before = scene.world.progress.deaths.get("broker", 0)
        scene.world.send("broker", signal.SIGKILL)
        struck.set_result(before)
        return passes

    scene.world.orders.strike_next(strike)
    before = await scene.moment(struck, partial(scene.world.orders.disarm, strike))
    await scene.world.back("broker", before)


async def freeze_broker(scene: Scene) -> None:
    """SIGSTOP of the broker service, at times beyond every answer's deadline."""
    seconds = scene.chance.choice((1.0, 3.0, 6.0, 9.0))
    try:
        scene.world.send("broker", signal.SIGSTOP)
        await asyncio.sleep(seconds)
    finally:
        scene.world.send("broker", signal.SIGCONT)


async def kill_redis(scene: Scene, *, wipe: bool) -> None:
    """SIGKILL of Valkey; with ``wipe`` its append-only file is gone too."""
    async with scene.ledger_engines:
        scene.world.wipe_redis = wipe
        await scene.down("redis", signal.SIGKILL)
        await asyncio.sleep(_CALM)


async def kill_postgres(scene: Scene) -> None:
    """SIGKILL of the PostgreSQL server."""
    async with scene.ledger_engines:
        await scene.down("postgres", signal.SIGKILL)
        await scene.ledger_answers()
        await asyncio.sleep(_CALM)


async def fill_disk(scene: Scene, name: str) -> None:
    """No file of an engine may grow: what it writes fails as on a full disk. Lifted after a while."""
    async with scene.ledger_engines:
        try:
            await scene.world.limit_files(name, _SMALL_FILE)
            await asyncio.sleep(scene.chance.uniform(1.0, 2.5))
        finally:
            # Those born meanwhile have inherited it.
            await scene.world.limit_files(name, None)
        await scene.ledger_answers()
        await scene.world.ready(name)
        await asyncio.sleep(_CALM)


async def script(scene: Scene, **rule: Any) -> None:
    """The simulator strikes at the next orders."""
    rule = {"name": "open-option", "times": 4, **rule}
    (added,) = (await scene.simulator.call("POST", "/faults", json=rule))["ids"]
    try:

        async def struck() -> int:
            rules = (await scene.simulator.call("GET", "/faults"))["faults"]
            return sum(int(one["struck"]) for one in rules if one["id"] == added)

        async def all_struck() -> bool:
            return await struck() >= int(rule["times"])

        try:
            await eventually(all_struck, within=_SCRIPTED, every=0.1)
        except AssertionError:
            if not await struck():
                raise MissedError from None
    finally:
        await scene.simulator.call("DELETE", "/faults", params={"id": added})


async def _says_within(log: Path, start: int, words: tuple[bytes, ...]) -> bool:
    async def says() -> bool:
        text = await asyncio.to_thread(log.read_bytes)
        # A log that has been shortened meanwhile begins anew.
        new = text[start:] if len(text) >= start else text
        return any(word in new for word in words)

    try:
        await eventually(says, within=_WAKE_NOTICED, every=0.2)
    except AssertionError:
        return False
    return True


@contextmanager
def _mode(switch: Callable[[Mode], None], mode: Mode) -> Iterator[None]:
    switch(mode)
    try:
        yield
    finally:
        switch(Mode.PASS)


def _disk_limits() -> str:
    return "" if hasattr(resource, "prlimit") else "needs prlimit, which only Linux has"


KINDS: Final = (
    Kind("session SIGKILL", kill_session, "runners", loses=True),
    Kind("session SIGTERM (drain)", end_session, "runners"),
    Kind("session SIGKILL before the write", kill_session_before, "runners", loses=True),
    Kind("session SIGKILL after the write", kill_session_after, "runners"),
    Kind("session SIGSTOP beyond the lease", freeze_session, "runners"),
    Kind("session to PostgreSQL cut", cut_ledger, "runners"),
    Kind("session to PostgreSQL delayed", delay_ledger, "runners"),
    Kind("session to PostgreSQL half-open", silence_ledger, "runners"),
    Kind("session cut off from PostgreSQL", isolate_session, "runners"),
    Kind("COMMIT done, answer lost", swallow_commit, "runners"),
    Kind("broker SIGKILL", partial(down, name="broker", number=signal.SIGKILL), "rest", loses=True),
    Kind("broker SIGTERM (drain)", partial(down, name="broker", number=signal.SIGTERM), "rest"),
    Kind("broker SIGKILL before the write", partial(kill_broker_at_write, passes=False), "rest", loses=True),
    Kind("broker SIGKILL after the write", partial(kill_broker_at_write, passes=True), "rest"),
    Kind("broker SIGSTOP", freeze_broker, "rest", loses=True),
    Kind("agent SIGKILL", partial(down, name="agent", number=signal.SIGKILL), "rest"),
    Kind("bridge SIGKILL", partial(down, name="bridge", number=signal.SIGKILL), "rest"),
    Kind("bridge SIGTERM", partial(down, name="bridge", number=signal.SIGTERM), "rest"),
    Kind("Envoy SIGKILL", partial(down, name="envoy", number=signal.SIGKILL), "rest"),
    Kind("Valkey SIGKILL", partial(kill_redis, wipe=False), "rest"),
    Kind("Valkey SIGKILL and wiped", partial(kill_redis, wipe=True), "rest"),
    Kind("PostgreSQL SIGKILL", kill_postgres, "rest"),
    Kind("PostgreSQL disk full", partial(fill_disk, name="postgres"), "rest", available=_disk_limits),
    Kind("Valkey disk full", partial(fill_disk, name="redis"), "rest", available=_disk_limits),
    Kind("broker's platform SIGKILL", partial(down, name="simulator", number=signal.SIGKILL), "rest", loses=True),
    Kind("broker cut before booking", partial(script, kind="disconnect_before"), "rest", loses=True),
    Kind("broker cut after booking", partial(script, kind="disconnect_after"), "rest"),
    Kind("broker's ack lost", partial(script, kind="lost", on="ack"), "rest"),
    Kind("broker's reply lost", partial(script, kind="lost", on="reply"), "rest"),
    Kind("broker's reply late", partial(script, kind="late", on="reply", seconds=9.0, jitter=6.0), "rest"),
)
