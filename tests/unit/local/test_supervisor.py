import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from local.probes import Probe
from local.process import _KILL_WAIT, Process, StartError, has_ended
from local.supervisor import _STOP_WITHIN, Supervisor
from tests.support.eventually import eventually

ROOT = Path(__file__).resolve().parents[3]
READY_AND_WAIT = "import pathlib,signal,sys; pathlib.Path(sys.argv[1]).touch(); signal.alarm(600); signal.pause()"
NOTE_ITS_END = (
    "import pathlib,signal,sys\n"
    "def end(*_):\n"
    "    with open(sys.argv[2], 'a') as f: f.write(sys.argv[3] + '\\n')\n"
    "    sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, end)\n"
    "pathlib.Path(sys.argv[1]).touch(); signal.alarm(600); signal.pause()"
)
DEAF_TO_SIGTERM = (
    "import pathlib,signal,sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "pathlib.Path(sys.argv[1]).touch(); signal.alarm(600); signal.pause()"
)


class Record:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []
        self.delays: list[float] = []

    def starting(self, name: str) -> None:
        self.events.append(("starting", name))

    def ready(self, name: str, seconds: float, *, again: bool) -> None:
        self.events.append(("back" if again else "ready", name))

    def died(self, name: str, how: str, delay: float, log_tail: Sequence[str]) -> None:
        self.events.append(("died", name, how, *log_tail))
        self.delays.append(delay)

    def stopping(self, name: str) -> None:
        self.events.append(("stopping", name))


def python(script: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", script, *map(str, arguments))


def file_exists(path: Path) -> Probe:
    async def probe() -> None:
        await asyncio.to_thread(path.stat)

    return probe


def a_process(folder: Path, name: str, script: str = READY_AND_WAIT, *arguments: object, **more: object) -> Process:
    mark = folder / f"{name}.up"
    return Process(name, python(script, mark, *arguments), file_exists(mark), **more)  # type: ignore[arg-type]


class Running:
    """A supervisor at work in a task."""

    def __init__(self, folder: Path, processes: Sequence[Process]) -> None:
        self.record = Record()
        self.spawned: list[Mapping[str, int]] = []
        self.stop = asyncio.Event()
        self.ready = asyncio.Event()
        self.supervisor = Supervisor(
            processes, logs=folder, cwd=folder, reporter=self.record, on_spawn=self.spawned.append
        )

    async def run(self) -> None:
        await self.supervisor.run(self.stop, self.ready.set)

    async def __aenter__(self) -> "Running":
        self._task = asyncio.create_task(self.run())
        waiter = asyncio.create_task(self.ready.wait())
        await asyncio.wait((self._task, waiter), return_when=asyncio.FIRST_COMPLETED, timeout=60)
        waiter.cancel()
        assert self.ready.is_set()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop.set()
        await self._task


def gone(pid: int) -> Callable[[], object]:
    async def probe() -> bool:
        with suppress(psutil.NoSuchProcess):
            return has_ended(psutil.Process(pid))
        return True

    return probe


async def test_a_process_starts_after_what_it_needs_and_stops_before_it(tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    processes = [
        a_process(tmp_path, "edge", NOTE_ITS_END, ends, "edge", needs=("service",)),
        a_process(tmp_path, "service", NOTE_ITS_END, ends, "service", needs=("engine",)),
        a_process(tmp_path, "engine", NOTE_ITS_END, ends, "engine"),
    ]
    async with Running(tmp_path, processes) as running:
        begun = [event for event in running.record.events if event[0] in ("starting", "ready")]
        assert begun == [(what, name) for name in ("engine", "service", "edge") for what in ("starting", "ready")]
    assert ends.read_text().split() == ["edge", "service", "engine"]


async def test_a_killed_process_is_started_again_and_that_is_said(tmp_path: Path) -> None:
    async with Running(tmp_path, [a_process(tmp_path, "service")]) as running:
        first = running.supervisor.pids["service"]
        os.kill(first, signal.SIGKILL)

        async def back() -> bool:
            return ("back", "service") in running.record.events

        await eventually(back)
        assert ("died", "service", "was killed by SIGKILL") in running.record.events
        assert running.supervisor.pids["service"] != first
        assert running.spawned[-1] == running.supervisor.pids


async def test_a_process_that_was_told_to_end_is_replaced_without_back_off(tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    async with Running(tmp_path, [a_process(tmp_path, "service", NOTE_ITS_END, ends, "x")]) as running:
        for number in range(1, 4):
            # The next one is ready when it says so, not because the last one did.
            (tmp_path / "service.up").unlink()
            os.kill(running.supervisor.pids["service"], signal.SIGTERM)

            async def back(number: int = number) -> bool:
                return running.record.events.count(("back", "service")) == number

            await eventually(back)
        # From the second death in a row on, a failure would show the end of the log.
        deaths = [event for event in running.record.events if event[0] == "died"]
        assert deaths == [("died", "service", "ended with status 0")] * 3
        assert running.record.delays == [running.record.delays[0]] * 3


async def test_the_second_death_in_a_row_shows_the_end_of_the_log(tmp_path: Path) -> None:
    script = "import pathlib,sys; print('cannot bind'); pathlib.Path(sys.argv[1]).touch(); input_ = sys.exit(3)"
    async with Running(tmp_path, [a_process(tmp_path, "service", script)]) as running:

        async def told() -> bool:
            return any("cannot bind" in event for event in running.record.events)

        await eventually(told)


async def test_a_process_that_never_becomes_ready_ends_the_start_and_leaves_nothing(tmp_path: Path) -> None:
    sound = a_process(tmp_path, "engine")
    broken = Process(
        "service", python("import sys; print('bad setting'); sys.exit(2)"), file_exists(tmp_path / "never")
    )
    running = Running(tmp_path, [sound, broken])
    with pytest.raises(StartError, match="service ended with status 2") as caught:
        await running.run()
    assert caught.value.log_tail[-1] == "bad setting"
    assert not running.ready.is_set()
    assert running.supervisor.pids == {}
    assert all(psutil.pid_exists(pid) is False for pids in running.spawned for pid in pids.values())


async def test_a_program_that_runs_once_is_ready_when_it_has_ended_well(tmp_path: Path) -> None:
    done = tmp_path / "done"
    processes = [
        Process("migrate", python("import pathlib,sys; pathlib.Path(sys.argv[1]).touch()", done)),
        a_process(tmp_path, "service", needs=("migrate",)),
    ]
    async with Running(tmp_path, processes) as running:
        assert done.exists()
        assert list(running.supervisor.pids) == ["service"]


async def test_a_process_deaf_to_the_stop_signal_is_killed(tmp_path: Path) -> None:
    processes = [a_process(tmp_path, "service", DEAF_TO_SIGTERM, stop_within=0.2)]
    async with Running(tmp_path, processes) as running:
        pid = running.supervisor.pids["service"]
    assert not psutil.pid_exists(pid)


async def test_a_stop_that_takes_too_long_as_a_whole_ends_with_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _STOP_WITHIN + _KILL_WAIT < 15, "the promise to tools"
    monkeypatch.setattr("local.supervisor._STOP_WITHIN", 0.2)
    processes = [
        a_process(tmp_path, "edge", DEAF_TO_SIGTERM, stop_within=600, needs=("service",)),
        # Outlasts the edge, and so would be asked in its turn if the edge could end by itself.
        a_process(tmp_path, "service", READY_AND_WAIT),
    ]
    async with Running(tmp_path, processes) as running:
        pids = running.supervisor.pids
    assert [event for event in running.record.events if event[0] == "stopping"] == [("stopping", "edge")]
    assert not any(psutil.pid_exists(pid) for pid in pids.values())


async def test_a_stop_during_the_start_leaves_nothing(tmp_path: Path) -> None:
    slow = Process(
        "service", python("import signal; signal.alarm(600); signal.pause()"), file_exists(tmp_path / "never")
    )
    running = Running(tmp_path, [slow])
    task = asyncio.create_task(running.run())

    async def spawned() -> bool:
        return bool(running.spawned)

    await eventually(spawned)
    running.stop.set()
    await task
    assert not psutil.pid_exists(running.spawned[0]["service"])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
async def test_nothing_survives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import asyncio,sys,pathlib\n"
        "from tests.unit.local.test_supervisor import Running, a_process\n"
        "async def main():\n"
        "    folder = pathlib.Path(sys.argv[1])\n"
        "    async with Running(folder, [a_process(folder, 'service')]) as running:\n"
        "        print(running.supervisor.pids['service'], flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        assert supervisor.stdout is not None
        child = int(await asyncio.wait_for(supervisor.stdout.readline(), 60))
        assert psutil.pid_exists(child)
    finally:
        supervisor.kill()
        await supervisor.communicate()
    await eventually(gone(child))  # type: ignore[arg-type]


def test_needs_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown or circular needs: service"):
        Running(tmp_path, [a_process(tmp_path, "service", needs=("engine",))])
