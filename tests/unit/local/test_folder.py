import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from local.folder import DataFolder, FolderInUseError, ForeignFolderError, is_in_use, read_run_file
from local.leftovers import end_leftovers, record
from local.logs import backup_of, begin_anew, open_log, shorten, tail
from local.ports import PortBlock, PortTakenError, require_free


def test_a_folder_serves_one_system_at_a_time(tmp_path: Path) -> None:
    with DataFolder(tmp_path):
        assert is_in_use(tmp_path)
        with pytest.raises(FolderInUseError):
            DataFolder(tmp_path).__enter__()
    assert not is_in_use(tmp_path)
    with DataFolder(tmp_path):
        pass


def test_keys_are_made_once_and_only_we_may_read_them(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data") as folder:
        first = [folder.encryption_key().read_bytes(), folder.signing_key().read_bytes()]
        password = folder.password("redis")
    with DataFolder(tmp_path / "data") as folder:
        assert [folder.encryption_key().read_bytes(), folder.signing_key().read_bytes()] == first
        assert folder.password("redis") == password
        assert folder.password("postgres") != password
        modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.keys.iterdir()}
    assert modes == {0o400}


def test_a_folder_never_changes_the_brokers_that_its_credentials_are_for(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "new") as folder:
        folder.belong_to("real")
        folder.encryption_key()
    with DataFolder(tmp_path / "new") as folder:
        folder.belong_to("real")
        with pytest.raises(ForeignFolderError, match="real"):
            folder.belong_to("simulator")
    with DataFolder(tmp_path / "of an earlier version") as folder:
        folder.encryption_key()
        with pytest.raises(ForeignFolderError, match="simulator"):
            folder.belong_to("real")


def test_the_run_file_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    with DataFolder(tmp_path) as folder:
        folder.publish({"gateway": "http://localhost:1"})
        assert read_run_file(tmp_path) == {"gateway": "http://localhost:1"}
        assert stat.S_IMODE(folder.run_file.stat().st_mode) == 0o600
    assert read_run_file(tmp_path) is None


def a_sleeper() -> subprocess.Popen[bytes]:
    """Return a process that lives until it is killed, or this one closes its input."""
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)


def test_leftovers_are_ended(tmp_path: Path) -> None:
    with a_sleeper() as sleeper:
        record(tmp_path / "pids.json", {"broker": sleeper.pid})
        assert end_leftovers(tmp_path / "pids.json") == ["broker"]
        assert not psutil.pid_exists(sleeper.pid)
    assert end_leftovers(tmp_path / "pids.json") == []


def test_a_stranger_with_a_recorded_pid_is_left_alone(tmp_path: Path) -> None:
    with a_sleeper() as sleeper:
        started = psutil.Process(sleeper.pid).create_time() - 100
        (tmp_path / "pids.json").write_text(f'[{{"name": "broker", "pid": {sleeper.pid}, "started": {started}}}]')
        assert end_leftovers(tmp_path / "pids.json") == []
        assert sleeper.poll() is None
        sleeper.kill()


def test_two_systems_never_share_a_port() -> None:
    with PortBlock.claim() as one, PortBlock.claim() as other:
        ours = {one.pick() for _ in range(12)}
        assert len(ours) == 12
        assert ours.isdisjoint(other.pick() for _ in range(12))


def test_a_wanted_port_that_is_taken_is_refused() -> None:
    with PortBlock.claim() as one, PortBlock.claim() as other:
        taken = min(one.pick(), one.pick()) - 1
        with pytest.raises(PortTakenError) as caught:
            other.pick(taken)
        assert caught.value.port == taken
        with pytest.raises(PortTakenError):
            require_free(taken)


def test_a_log_that_grew_too_long_is_set_aside_while_its_process_writes_on(tmp_path: Path) -> None:
    path = tmp_path / "broker.log"
    with open_log(path) as descriptor:
        os.write(descriptor, b"one\n" * 100)
        assert not shorten(path, max_bytes=400)
        assert shorten(path, max_bytes=399)
        os.write(descriptor, b"two\n")
    assert path.read_text() == "two\n"
    assert backup_of(path).read_text() == "one\n" * 100


def test_a_new_run_keeps_the_log_of_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "broker.log"
    path.write_text("last words\n")
    begin_anew(path)
    assert tail(path) == []
    assert tail(backup_of(path)) == ["last words"]
