"""Completion in real shells, of what the parser has and of what a running gateway has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeq.admin.commands import COMMANDS as ADMIN
from edgeq.cli import COMMANDS, main
from edgeq.cli.completion import SHELLS, names_for, script
from tests.support.gateway import Settings, Value, running
from tests.support.supervised import wait_for

BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
function=$(complete -p edgeq | sed 's/.*-F \\([^ ]*\\).*/\\1/')
"$function" edgeq "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the three scripts, and with a command `edgeq`."""
    directory = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        (directory / shell).write_text(script(shell))
    command = directory / "bin" / "edgeq"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m edgeq "$@"\n')
    command.chmod(0o755)
    return directory


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("admin") / "admin.sock"
    extra = {"server": {"admin": str(path)}, "route": [{"name": "shop", "upstream": "u"}]}
    with running(1, Settings(extra=extra)) as gateway:  # type: ignore[arg-type]
        gateway.wait_event("serving")
        yield path


def shell(directory: Path, *argv: str) -> list[str]:
    environment = {**os.environ, "PATH": f"{directory / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return [line.partition("\t")[0] for line in done.stdout.splitlines() if line]


def bash(directory: Path, *words: str) -> list[str]:
    return shell(directory, "bash", "--norc", "-c", BASH, "bash", str(directory / "bash"), "edgeq", *words)


def test_bash_knows_the_whole_command_line(scripts: Path) -> None:
    """Commands, subjects of the table, options, their choices, and files."""
    assert bash(scripts, "") == list(COMMANDS)
    assert bash(scripts, "comp") == ["completion"]
    subjects = [one.words.removeprefix("show ") for one in ADMIN if one.words.startswith("show ")]
    assert bash(scripts, "show", "") == subjects
    assert "connections" in subjects
    assert bash(scripts, "top", "--o") == ["--once"]
    assert bash(scripts, "top", "--sort", "o") == ["oldest"]
    assert bash(scripts, "completion", "") == list(SHELLS)
    assert str(scripts / "bash") in bash(scripts, "check", "--config", f"{scripts}/b")


def test_bash_asks_the_gateway_for_names(scripts: Path, admin: Path) -> None:
    """Of the socket that the line names; nothing and no complaint without one."""
    names = wait_for("its names", lambda: bash(scripts, "show", "queues", "--admin", str(admin), "upstream/"))
    assert names[0] == "upstream/u"
    assert bash(scripts, "top", "--admin", str(admin), "ro") == ["route/shop"]
    assert bash(scripts, "top", "--admin", f"{admin}.none", "ro") == []


def test_fish_and_zsh(scripts: Path, admin: Path) -> None:
    """Where they are installed."""
    missing = [name for name in ("fish", "zsh") if shutil.which(name) is None]
    if "fish" not in missing:

        def fish(line: str) -> list[str]:
            return shell(scripts, "fish", "-c", f'source {scripts}/fish; complete -C "{line}"')

        assert "show" in fish("edgeq s")
        assert "queues" in fish("edgeq show q")
        assert fish(f"edgeq top --admin {admin} ro") == ["route/shop"]
    if "zsh" not in missing:
        assert shell(scripts, "zsh", "-n", str(scripts / "zsh")) == []
    if missing:
        pytest.skip(f"not here: {', '.join(missing)}")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints the script; without a shell it asks for which."""
    for name in SHELLS:
        assert main(["completion", name]) == 0
        assert capsys.readouterr().out == script(name)
    assert main(["completion"]) == 2
    assert "bash, zsh, fish" in capsys.readouterr().err
    assert main(["completion", "--resources", "edgeq", "top", "--admin", "/nowhere"]) == 69
    assert main(["completion", "--resources", "edgeq", "top", "--admin"]) == 69


def test_names_that_a_command_takes() -> None:
    """Endpoints, routes, what has settings; of others all."""
    named = {"upstream/a", "upstream/a#1.1.1.1:80", "listener/:80"}
    for word, expected in (
        ("drain", {"upstream/a#1.1.1.1:80"}),
        ("resume", {"r"}),
        ("set", {"upstream/a", "listener/:80", "route/r"}),
        ("explain", named | {"route/r"}),
    ):
        assert names_for(["edgeq", word, ""], named, {"r"}) == expected


def test_names_of_providers() -> None:
    """Who can be woken or disabled, and what has settings: a provider and a model, not what is made of them."""
    named = {"upstream/a", "upstream/a#1.1.1.1:80", "upstream/p-k", "upstream/p-k#2.2.2.2:80", "target/p-k/big"}
    model = {"model": "smart", "target": "p-k/big", "upstream": "p-k", "provider": "p"}
    parts = {"provider/p", "upstream/p-k", "target/p-k/big"}
    for word, expected in (
        ("wake", parts),
        ("disable", parts | {"upstream/a#1.1.1.1:80"}),
        ("enable", parts | {"upstream/a#1.1.1.1:80"}),
        ("drain", {"upstream/a#1.1.1.1:80"}),
        ("set", {"upstream/a", "provider/p", "model/smart", "route/r"}),
        ("explain", named | {"route/r", "provider/p", "model/smart"}),
    ):
        assert names_for(["edgeq", word, ""], named, {"r"}, [model]) == expected


def test_bash_asks_for_parts_of_providers(scripts: Path, tmp_path: Path) -> None:
    """Of the gateway, where an argument has its place; not where `--name` is an option that means something new."""
    path = tmp_path / "admin.sock"
    extra: dict[str, Value] = {
        "server": {"admin": str(path)},
        "provider": {"openai": {"url": "http://127.0.0.1:9/v1"}},
        "model": {"smart": {"targets": [{"provider": "openai", "model": "gpt-4o"}]}},
        "route": [{"name": "models", "match": {"path": "/v1/*"}, "llm": {}}],
    }
    with running(1, Settings(extra=extra)) as gateway:
        gateway.wait_event("serving")
        admin = ("--admin", str(path))
        for verb in ("wake", "disable", "enable"):
            assert bash(scripts, verb, *admin, "p") == ["provider/openai"]
            assert bash(scripts, verb, *admin, "t") == ["target/openai/gpt-4o"]
        assert bash(scripts, "keys", "create", *admin, "--name", "") == []
