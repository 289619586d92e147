"""Finds and ends what a run that was killed left behind: only what that run itself had recorded."""

import json
from collections.abc import Mapping
from pathlib import Path

import psutil

from local.folder import write_private
from local.process import has_ended

_SAME_START = 1.0
"""Seconds by which a start time may differ between two readings (it is derived from the boot time)."""


def record(file: Path, pids: Mapping[str, int]) -> None:
    """Remember the running processes by pid and start time, which together name a process for good."""
    entries = []
    for name, pid in pids.items():
        try:
            entries.append({"name": name, "pid": pid, "started": psutil.Process(pid).create_time()})
        except psutil.NoSuchProcess:
            continue
    write_private(file, json.dumps(entries))


def end_leftovers(file: Path, patience: float = 3.0) -> list[str]:
    """End the recorded processes that still run: SIGTERM, then SIGKILL after ``patience`` seconds. Return their names."""
    try:
        entries = json.loads(file.read_text())
    except (OSError, ValueError):
        return []
    found: dict[psutil.Process, str] = {}
    for entry in entries:
        try:
            process = psutil.Process(entry["pid"])
            same = abs(process.create_time() - entry["started"]) <= _SAME_START
            if same and not has_ended(process):
                process.terminate()
                found[process] = entry["name"]
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(found, timeout=patience)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=patience)
    file.unlink(missing_ok=True)
    return list(found.values())
