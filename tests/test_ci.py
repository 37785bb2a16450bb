"""What decides whether work lands says so with its exit status: `.ci/run` beside stand-ins of all that it starts."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CI = Path(__file__).parents[1] / ".ci/run"
# One word of what make was asked for fails; everything else ends well and at once.
MAKE = """#!/bin/sh
case " $* " in *" $FAILS "*) echo "FAILED a test of $*"; exit 2 ;; esac
echo "made $*"
"""


@pytest.mark.parametrize("fails", ["", "lint", "test", "test-pure", "types"])
def test_it_is_red_if_and_only_if_something_failed(tmp_path: Path, fails: str) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(CI, tmp_path / ".ci/run")
    tools = tmp_path / "tools"
    tools.mkdir()
    for command in [*re.findall(r"^need (\S+)", CI.read_text(), re.MULTILINE), "make", "promtool"]:
        (tools / command).write_text(MAKE if command == "make" else "#!/bin/sh\n")
        (tools / command).chmod(0o755)
    env = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "FAILS": fails or "nothing"}
    ran = subprocess.run(
        [shutil.which("bash") or "bash", tmp_path / ".ci/run"],
        env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ran.returncode != 0) == bool(fails), (ran.stdout, ran.stderr)
    if fails in {"test", "test-pure"}:
        build = "compiled" if fails == "test" else "interpreted"
        told = ran.stdout.partition(f"=== the tests of the {build} build failed:")[2]
        assert f"FAILED a test of {fails}" in told
