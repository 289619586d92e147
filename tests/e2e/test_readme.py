"""The README's first session works as it is written."""

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest

from local.settings import CHECKOUT
from tests.support.stack import Stack


@pytest.mark.timeout(600)
async def test_the_first_session_of_the_readme_works_as_written(stack: Stack, tmp_path: Path) -> None:
    text = (CHECKOUT / "README.md").read_text()
    script = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    assert script.count("curl") == 8
    # Only what belongs to the place: the port, the interpreter, the folder for temporary files.
    script = script.replace("/tmp/", f"{tmp_path}/").replace(".venv/bin/python", sys.executable)  # noqa: S108
    script = script.replace("localhost:8000", stack.facts["gateway"].removeprefix("http://"))
    # On a slow machine twelve frames may come before the bot has decided: then look again, five times at most.
    watch, seen = f"{sys.executable} {tmp_path}/watch.py $SID", tmp_path / "frames"
    assert script.count(watch) == 1
    enough = " && ".join(f'grep -q \'"type":"{kind}"\' {seen}' for kind in ("signal", "candle"))
    script = script.replace(watch, f"for _ in 1 2 3 4 5; do {watch} | tee -a {seen}; {enough} && break; done")
    shell = await asyncio.create_subprocess_exec(
        "bash", "-eu", "-o", "pipefail", "-c", script, cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(shell.communicate(), 120)
    answers = [json.loads(line) for line in output.decode().splitlines()]
    assert shell.returncode == 0
    assert all(answer["success"] for answer in answers if "type" not in answer)
    frames = [answer for answer in answers if "type" in answer]
    assert frames[0]["type"] == "snapshot"
    assert {"signal", "candle"} <= {frame["type"] for frame in frames}
    assert len(answers) == 7 + len(frames)
