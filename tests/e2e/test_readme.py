"""The README's first session works as it is written."""

import asyncio
import json
import re
import sys
from pathlib import Path

from local.settings import CHECKOUT
from tests.support.stack import Stack


async def test_the_first_session_of_the_readme_works_as_written(stack: Stack, tmp_path: Path) -> None:
    text = (CHECKOUT / "README.md").read_text()
    script = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    assert script.count("curl") == 8
    # Only what belongs to the place: the port, the interpreter, the folder for temporary files.
    script = script.replace("/tmp/", f"{tmp_path}/").replace(".venv/bin/python", sys.executable)  # noqa: S108
    script = script.replace("localhost:8000", stack.facts["gateway"].removeprefix("http://"))
    shell = await asyncio.create_subprocess_exec(
        "bash", "-eu", "-o", "pipefail", "-c", script, cwd=CHECKOUT, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(shell.communicate(), 60)
    answers = [json.loads(line) for line in output.decode().splitlines()]
    assert shell.returncode == 0
    assert all(answer["success"] for answer in answers if "type" not in answer)
    frames = [answer for answer in answers if "type" in answer]
    assert frames[0]["type"] == "snapshot"
    assert {"signal", "candle"} <= {frame["type"] for frame in frames}
    assert len(answers) == 7 + len(frames)
