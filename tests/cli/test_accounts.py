"""`edgeq keys`, `tenants` and `usage` without a running edgeq."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeq.cli import main
from edgeq.llm.store_io import Store


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A file that names an admin socket, where nobody listens, and a store that is not there."""
    path = tmp_path / "edgeq.toml"
    path.write_text(
        f'server = {{ admin = "{tmp_path}/admin.sock" }}\naccounts = {{ store = "{tmp_path}/s" }}\n'
        'listener = [{ address = "127.0.0.1:1" }]\nupstream = { u = { endpoints = ["http://127.0.0.1:9"] } }\n'
    )
    return str(path)


def test_the_store_of_a_gateway_that_does_not_run(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By its configuration, or by its file."""
    assert main(["check", "-q", "-c", config]) == 0
    with pytest.raises(SystemExit):
        main(["keys"])
    assert main(["keys", "list", "-c", config]) == 2
    assert "there is no store" in capsys.readouterr().err
    assert main(["keys", "create", "--tenant", "acme", "--rpm", "5", "-c", config, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    store = str(Path(config).parent / "s")
    assert main(["keys", "show", made["id"], "--store", store]) == 0
    shown = capsys.readouterr().out
    assert "limits: requests_per_minute=5" in shown
    assert made["key"] not in shown
    assert main(["tenants", "set", "acme", "--weight", "2", "--store", store]) == 0
    assert capsys.readouterr().out == "ok: true\nlimits: -\n"
    for words in (["tenants"], ["tenants", "list"], ["tenants", "list", "acm"]):
        assert main([*words, "--store", store]) == 0
        assert "acme" in capsys.readouterr().out
    assert main(["tenants", "list", "other", "--store", store]) == 0
    assert "acme" not in capsys.readouterr().out
    assert main(["usage", "--store", store, "--csv"]) == 0
    assert capsys.readouterr().out == (
        "tenant,model,requests,errors,refused,input,output,cached,cache_write,reasoning,cost\n"
    )
    assert main(["usage", "--store", store, "--by", "x"]) == 2


def test_a_store_that_a_gateway_has_open(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It would not know of the change: it is refused. Reading is not."""
    path = str(Path(config).parent / "s")
    store = Store(path)
    assert main(["keys", "create", "--tenant", "acme", "--store", path]) == 1
    assert "another edgeq has it open" in capsys.readouterr().err
    assert main(["keys", "list", "--store", path]) == 0
    store.close()


def test_nobody_is_asked_but_who_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a store to fall back on, a socket where nobody listens is a failure."""
    assert main(["keys", "list", "--admin", str(tmp_path / "none")]) == 69
    assert "not reachable" in capsys.readouterr().err
