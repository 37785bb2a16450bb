"""The commands, as a user types them."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import edgeq
from edgeq.admin.command import Command
from edgeq.admin.commands import COMMANDS as ADMIN
from edgeq.cli import COMMANDS, machine_io, main, make_parser, serve
from edgeq.cli.arguments import NoAnswer, default_admin
from edgeq.cli.machine import Machine
from edgeq.cli.plot import plot
from edgeq.config.change import Change
from edgeq.config.changes_io import write_changes
from edgeq.errors import EdgeqError

if TYPE_CHECKING:
    from edgeq.config.load import Document

GOOD = '[server]\nworkers = 2\n[[listener]]\naddress = "127.0.0.1:8080"\n[upstream.a]\nendpoints = ["http://127.0.0.1:9"]\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A right configuration."""
    file = tmp_path / "edgeq.toml"
    file.write_text(GOOD)
    return file


def test_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    """All of them are listed, as by --help; that is wrong usage all the same."""
    assert main([]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert all(re.search(rf"^    {name}\b", told.err, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_each_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help of a command shows how it is typed."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"examples:\n  edgeq {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", ADMIN, ids=[one.words for one in ADMIN])
def test_each_option_can_be_typed(command: Command) -> None:
    """What the admin socket knows of a command, the command line takes."""
    values = [one.name for one in command.arguments if one.required]
    given = [text for one in command.options for text in (f"--{one.name}", *([] if one.is_flag else ["1"]))]
    words = (command.also or command.words).split()
    if words[0] not in COMMANDS or not given:
        return
    known = vars(make_parser().parse_args([*words, *values, *given]))
    assert {one.name: known[one.name] for one in command.options} == {
        one.name: "true" if one.is_flag else "1" for one in command.options
    }


def test_lines_of_the_help_of_show_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """What is said of a subject ends where a thought does."""
    with pytest.raises(SystemExit):
        main(["show", "--help"])
    subjects = capsys.readouterr().out.partition("subjects:\n")[2].splitlines()
    assert len(subjects) > 15
    assert [one for one in subjects if one.count("(") != one.count(")")] == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")
def test_what_cannot_be_written_is_said() -> None:
    """A disk that is full is no defect of the command's."""
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "edgeq", "version"], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr == b"edgeq version: the answer cannot be written: No space left on device\n"


@pytest.mark.parametrize("argv", [["nonsense"], ["serve", "--workers", "many"], ["check", "--format", "xml"]])
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and a usage line."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert "usage: edgeq" in capsys.readouterr().err


def test_what_the_admin_socket_can_do_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    """One table for both; `edgeq help` tells of all, and of one."""
    assert {one.words.split()[0] for one in ADMIN} <= COMMANDS.keys()
    assert main(["help"]) == 0
    told = capsys.readouterr().out
    assert [line.split()[0] for line in told.splitlines() if re.match("    [a-z]", line)] == list(COMMANDS)
    with pytest.raises(SystemExit) as ended:
        main(["help", "ready"])
    assert ended.value.code == 0
    assert "usage: edgeq ready" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("help keys create", "usage: edgeq keys create"),
        ("keys set k3v8n2pq --rmp 4", "usage: edgeq keys set"),
        ("keys set k3v8n2pq --rmp 4", "--rmp (did you mean --rpm?)"),
        ("keys set k3v8n2pq --rmp=4", "--rmp=4 (did you mean --rpm?)"),
        ("explain --jsn", "usage: edgeq explain"),
        ("key list", "there is no 'key' (did you mean keys?)"),
        ("keys lst", "there is no 'lst' (did you mean list?)"),
        ("show quues", "there is no 'quues' (did you mean queues?)"),
        ("show usage", "'usage' is a command of its own: edgeq usage"),
        ("show keys", "'keys' is a command of its own: edgeq keys"),
        ("show zzz", "choose from"),
    ],
)
def test_who_mistypes_is_told_what_was_meant(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the usage of the command that was typed, not that of all; and help knows commands of two words."""
    with pytest.raises(SystemExit):
        main(words.split())
    out, err = capsys.readouterr()
    assert told in out + err


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["show", "connections", "none"], "edgeq show: count: expected a number from 1 to 1000"),
        (["set", "a/b", "c", "d", "--ttl", "x"], "edgeq set: ttl: expected a duration"),
        (["drain", "a:1", "--comment", "x" * 201], "edgeq drain: comment: expected 200"),
        (["show", "queues", "a", "b"], "edgeq show: too many words"),
    ],
)
def test_a_wrong_command_line_is_wrong_without_a_gateway(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, as of what argparse finds, and nobody is asked."""
    assert main([*argv, "--admin", "/nowhere"]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["reload"], ["show", "queues"], ["set", "a/b", "c", "d"], ["keys", "list"], ["live"]]
)
@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "1e12", "soon"])
def test_time_outs_are_seconds(command: list[str], seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    """More than none; what no socket takes is a mistake of the command line, and no traceback."""
    with pytest.raises(SystemExit) as ended:
        main([*command, "--timeout", seconds])
    assert ended.value.code == 2
    assert "argument --timeout: " in capsys.readouterr().err


def test_who_is_there_and_does_not_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 75: it may be tried again; 77 where this user must not connect."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen(8)
        for command in (
            ["show", "queues"],
            ["set", "a/b", "c", "d"],
            ["reload"],
            ["ready"],
            ["explain"],
            ["keys", "list"],
        ):
            assert main([*command, "--admin", str(tmp_path / "s"), "--timeout", "0.01"]) == 75
            assert "has not answered in time" in capsys.readouterr().err
    refused = NoAnswer("/s", PermissionError(13, "Permission denied"))
    assert (refused.exit_code, "server.admin_group" in str(refused)) == (77, True)


@pytest.mark.parametrize(("option", "value"), [("--listen", "127.0.0.1:1"), ("--upstream", "http://127.0.0.1:2")])
def test_what_there_can_be_one_of_is_not_said_twice(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first one would be forgotten without a word; several need a file."""
    with pytest.raises(SystemExit) as ended:
        main(["serve", option, value, option, "unix:/run/other.sock"])
    assert ended.value.code == 2
    assert f"argument {option}: may be given once; several need a file (--config)" in capsys.readouterr().err


class TestVersion:
    """edgeq version."""

    def test_text_and_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Both name the version and the variant."""
        assert main(["version", "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["version"] == edgeq.__version__
        assert facts["hot_path"] in ("compiled", "interpreted")
        assert main(["version"]) == 0
        assert facts["hot_path"] in capsys.readouterr().out

    def test_a_reader_that_leaves(self) -> None:
        """A closed pipe is no traceback."""
        read, write = os.pipe()
        os.close(read)
        result = subprocess.run(
            [sys.executable, "-m", "edgeq", "version"], stdout=write, stderr=subprocess.PIPE, check=False, timeout=60
        )
        os.close(write)
        assert result.returncode == 1
        assert result.stderr == b""


class TestCheck:
    """edgeq check."""

    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that grants everything."""
        monkeypatch.setattr(machine_io, "read_machine", lambda: Machine(65535, 1 << 20, (1024, 65535), True, 2))

    def test_right(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A line that counts what is there; nothing with --quiet."""
        assert main(["check", "--config", str(file)]) == 0
        assert capsys.readouterr().out == f"{file}: ok (1 listener, 1 upstream, 1 route)\n"
        with file.open("a") as more:
            more.write(
                '[[route]]\nname = "m"\nllm = {}\nmatch.path = "/v1/*"\n[model.m]\ntargets = [{ provider = "p" }]\n'
            )
            more.write('[provider.p]\nurl = "http://127.0.0.1:9/v1"\nkeys = ["a", "b"]\n')
            more.write('[[route]]\nname = "r"\nupstream = "a"\n')
        assert main(["check", "--config", str(file)]) == 0
        said = capsys.readouterr().out
        assert said == f"{file}: ok (1 listener, 1 upstream, 1 provider, 2 keys, 1 model, 2 routes)\n"
        assert main(["check", "--config", str(file), "--quiet"]) == 0
        assert capsys.readouterr().out == ""
        assert main(["check", "--config", str(file), "--format", "json"]) == 0
        assert json.loads(capsys.readouterr().out) == {
            "ok": True,
            "file": str(file),
            "problems": [],
            "idle": [],
            "machine": [],
        }

    def test_kept_changes(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """They are read as a start does: what is no such file is an error, what would end at a start is told."""
        kept = Path(f"{file}.d") / "changes.toml"
        kept.parent.mkdir()
        kept.write_text("garbage")
        assert main(["check", "-c", str(file)]) == 78
        assert f"{kept}: no file of edgeq's live changes" in capsys.readouterr().err
        write_changes(str(kept), [Change("upstream/zz", "limit", 5, None, persisted=True)])
        assert main(["check", "-c", str(file)]) == 0
        assert f"{kept}: upstream/zz limit: ends at a start: " in capsys.readouterr().out

    def test_what_is_missing(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """A price that nobody has given is not one without effect."""
        price = "model.m.targets[0].price"
        file.write_text(
            f'{GOOD}[accounts]\nstore = "{file.parent / "a.sqlite"}"\n[provider.p]\nurl = "http://127.0.0.1:1/v1"\n'
            '[model.m]\ntargets = [{ provider = "p" }]\n'
            '[[route]]\nname = "llm"\nmatch = { path = "/v1/*" }\nllm = {}\n'
        )
        assert main(["check", "-c", str(file)]) == 0
        assert f"{price}: is missing: what this target answers costs nothing" in capsys.readouterr().out

    def test_without_effect(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """What is right and does nothing is named with its line; a failure only if asked."""
        file.write_text(f"{GOOD}tls.verify = false\n")
        message = "is not used: no endpoint is https"
        assert main(["check", "-c", str(file)]) == 0
        said = f"{file}: ok (1 listener, 1 upstream, 1 route)\n{file}:7: upstream.a.tls.verify: no effect: {message}\n"
        assert capsys.readouterr().out == said
        assert main(["check", "-c", str(file), "-q"]) == 0
        assert capsys.readouterr().out == ""
        assert main(["check", "-c", str(file), "-q", "--strict"]) == 1
        assert capsys.readouterr().out == said
        assert main(["check", "-c", str(file), "--strict", "--json"]) == 1
        answer = json.loads(capsys.readouterr().out)
        assert (answer["ok"], answer["idle"]) == (
            True,
            [{"file": str(file), "line": 7, "key_path": "upstream.a.tls.verify", "message": message}],
        )

    def test_short(self, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """A machine that grants less: each key with its line, then the lines that cure it; a failure only if asked."""
        monkeypatch.setattr(machine_io, "read_machine", lambda: Machine(128, 1024, (65000, 65535), False, 2))
        assert main(["check", "-c", str(file)]) == 0
        said = capsys.readouterr().out.splitlines()
        assert [line.split(": ")[1:3] for line in said[1:5]] == [
            ["listener[0].backlog", "this machine"],
            ["listener[0].max_connections", "this machine"],
            ["upstream.a.pool.max_connections", "this machine"],
            ["listener[0].address", "advice"],
        ]
        assert said[1].endswith("4096 connections shall wait, the kernel lets 128")
        assert said[5:] == [
            "in /etc/sysctl.d/70-edgeq.conf:",
            "  net.core.somaxconn = 4096",
            "  net.ipv4.ip_local_port_range = 64512 65535",
            "  net.ipv4.tcp_migrate_req = 1",
            "in /etc/systemd/system/edgeq.service.d/local.conf:",
            "  [Service]",
            "  LimitNOFILE=1048576",
        ]
        assert main(["check", "-c", str(file), "--quiet"]) == 0
        assert capsys.readouterr().out == ""
        assert main(["check", "-c", str(file), "--strict", "--json"]) == 1
        answer = json.loads(capsys.readouterr().out)
        assert answer["ok"] is True
        assert [one["setting"] for one in answer["machine"]] == [
            "net.core.somaxconn",
            "RLIMIT_NOFILE",
            "net.ipv4.ip_local_port_range",
            "net.ipv4.tcp_migrate_req",
        ]
        assert answer["machine"][0]["config_line"] == 3
        assert answer["machine"][0]["key_path"] == "listener[0].backlog"
        assert (answer["machine"][0]["needed"], answer["machine"][0]["granted"]) == (4096, 128)

    def test_wrong(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Exit code 78; text for people on standard error, JSON for programs on standard output."""
        file.write_text(GOOD.replace("workers", "wrokers"))
        message = "unknown key (did you mean workers?)"
        assert main(["check", "-c", str(file)]) == 78
        assert capsys.readouterr().err == f"{file}:2: server.wrokers: {message}\n"
        assert main(["check", "-c", str(file), "--format", "json"]) == 78
        assert json.loads(capsys.readouterr().out)["problems"] == [
            {"file": str(file), "line": 2, "key_path": "server.wrokers", "message": message}
        ]

    def test_the_usual_place(
        self, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Without --config, edgeq.toml of the working directory is read; without that, the user is told."""
        monkeypatch.chdir(file.parent)
        assert main(["check"]) == 0
        file.unlink()
        assert main(["check"]) == 2
        assert "--config FILE" in capsys.readouterr().err


class TestServe:
    """edgeq serve, up to the supervisor."""

    @pytest.fixture(autouse=True)
    def _signals_stay(self) -> Iterator[None]:
        """What the supervisor would have unblocked."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        yield
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    @pytest.fixture
    def served(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Callable[[], Document], str | None]]:
        """What the supervisor would have been given."""
        calls: list[tuple[Callable[[], Document], str | None]] = []

        def note(read: Callable[[], Document], pidfile: str | None) -> int:
            calls.append((read, pidfile))
            return 0

        monkeypatch.setattr(serve, "_serve", note)
        return calls

    def test_quickstart(self, served: list[tuple[Callable[[], Document], str | None]]) -> None:
        """Two options are enough."""
        assert main(["serve", "--listen", "127.0.0.1:1", "--upstream", "http://127.0.0.1:2", "--workers", "3"]) == 0
        config = served[0][0]().build()
        assert (config.listener[0].address, config.server.workers) == ("127.0.0.1:1", 3)

    def test_options_over_a_file(self, file: Path, served: list[tuple[Callable[[], Document], str | None]]) -> None:
        """Options win, now and at a reload, which reads the file again."""
        argv = ["serve", "--config", str(file), "--workers", "5", "--admin", "/run/x", "--listen", "[::1]:1"]
        assert main([*argv, "--pidfile", "p"]) == 0
        read, pidfile = served[0]
        config = read().build()
        assert (config.listener[0].address, config.server.workers, config.server.admin) == ("[::1]:1", 5, "/run/x")
        assert pidfile == "p"
        file.write_text(GOOD.replace("127.0.0.1:9", "127.0.0.1:10"))
        config = read().build()
        assert config.upstream["a"].endpoints == ("http://127.0.0.1:10",)
        assert config.server.workers == 5

    @pytest.mark.parametrize(
        ("argv", "code", "says"),
        [
            (["--upstream", "http://a"], 2, "--listen"),
            (["--upstream", "http://a", "--config", "f"], 2, "--upstream is for running without a file"),
            (["--demo", "--config", "f"], 2, "--demo brings its own upstream"),
            (["--listen", "x", "--upstream", "y"], 2, "command line: --listen: no port"),
            (["--config", "/no/such/file"], 78, "/no/such/file: cannot be read"),
        ],
    )
    def test_refused(self, argv: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Wrong options are wrong usage, a wrong file is a wrong configuration."""
        assert main(["serve", *argv]) == code
        assert says in capsys.readouterr().err

    def test_without_a_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What there is in its place is named."""
        monkeypatch.setattr("edgeq.cli.arguments.DEFAULT_FILES", (str(tmp_path / "a"), str(tmp_path / "b")))
        assert main(["serve"]) == 2
        assert "name one with --config FILE, or say --listen ADDR --upstream URL, or --demo" in capsys.readouterr().err

    def test_demo(
        self,
        served: list[tuple[Callable[[], Document], str | None]],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """--demo starts an upstream and a provider that answer while edgeq serves, and are gone afterwards."""
        answers: list[bytes] = []
        addresses: list[tuple[str, int]] = []

        def ask(read: Callable[[], Document], pidfile: str | None, serving: Callable[[], None]) -> int:
            config = read().build()
            for name, path in (("default", "/"), ("steady", "/v1/models")):
                host, port = next(iter(config.upstream[name].weights())).removeprefix("http://").split(":")
                connection = http.client.HTTPConnection(host, int(port), timeout=60)
                connection.request("GET", path)
                answers.append(connection.getresponse().read())
                connection.close()
                addresses.append((host, int(port)))
            assert capsys.readouterr().err == ""
            serving()
            return 0

        monkeypatch.setattr(serve, "_serve", ask)
        assert main(["serve", "--demo", "--listen", "127.0.0.1:18080"]) == 0
        assert answers[0].startswith(b"GET / HTTP/1.1\n")
        assert b'"demo"' in answers[1]
        said = capsys.readouterr().err
        assert "curl -i http://127.0.0.1:18080/\n" in said
        assert "curl -iN http://127.0.0.1:18080/v1/chat/completions -d" in said
        for address in addresses:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address, timeout=60)

    def test_demo_whose_port_is_taken(self, tmp_path: Path) -> None:
        """Nobody is invited to ask it, and it is said once what is wrong."""
        with socket.create_server(("127.0.0.1", 0)) as holder:
            command = [sys.executable, "-m", "edgeq", "serve", "--demo"]
            command += ["--listen", f"127.0.0.1:{holder.getsockname()[1]}"]
            ended = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert ended.returncode == 1
        assert b"the port is in use" in ended.stderr
        assert b"curl" not in ended.stderr
        assert ended.stdout == b""


class TestReload:
    """edgeq reload."""

    @staticmethod
    @contextmanager
    def admin(path: Path, answer: bytes) -> Iterator[list[bytes]]:
        """An admin socket that takes one request."""
        requests: list[bytes] = []
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(1)

        def serve_one() -> None:
            peer, _ = listener.accept()
            with peer:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += peer.recv(65536)
                requests.append(data)
                peer.sendall(answer)

        thread = threading.Thread(target=serve_one, daemon=True)
        thread.start()
        with listener:
            yield requests
            thread.join(timeout=60)

    @staticmethod
    def answer(status: str, body: object) -> bytes:
        data = json.dumps(body).encode()
        return f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data

    def test_done(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """POST /v1/reload over the socket, and the new generation."""
        path = tmp_path / "a"
        with self.admin(path, self.answer("200 OK", {"ok": True, "generation": 7, "lost": ["no model"]})) as requests:
            assert main(["reload", "--admin", str(path)]) == 0
        assert requests[0].startswith(b"POST /v1/reload HTTP/1.1\r\n")
        assert capsys.readouterr() == ("reloaded: generation 7\n", "edgeq reload: no model\n")

    def test_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The reason is shown, the exit code is 1; the socket's path comes from a file that may be wrong itself."""
        path = tmp_path / "a"
        file = tmp_path / "f.toml"
        file.write_text(f'[server]\nadmin = "{path}"\nwrokers = 1\n')
        answer = self.answer("422 Unprocessable Content", {"ok": False, "generation": 6, "error": "f:3: unknown key"})
        with self.admin(path, answer):
            assert main(["reload", "--config", str(file)]) == 1
        assert "f:3: unknown key" in capsys.readouterr().err

    @pytest.mark.parametrize("answer", [b"what?\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", b""])
    def test_something_else_listens(self, tmp_path: Path, answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
        """What is no admin socket is not taken for one."""
        path = tmp_path / "a"
        with self.admin(path, answer):
            assert main(["reload", "--admin", str(path)]) == 69
        assert "not reachable" in capsys.readouterr().err

    def test_nobody_listens(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Exit code 69, and the path that was tried."""
        assert main(["reload", "--admin", str(tmp_path / "a")]) == 69
        assert str(tmp_path / "a") in capsys.readouterr().err

    def test_the_socket_of_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """EDGEQ_ADMIN names it for all commands; what the command line says is stronger, and empty says nothing."""
        monkeypatch.setenv("EDGEQ_ADMIN", str(tmp_path / "variable"))
        for command in (
            ["reload"],
            ["show", "queues"],
            ["unset", "upstream/u", "limit"],
            ["top", "--once"],
            ["explain"],
        ):
            assert main(command) == 69
            assert str(tmp_path / "variable") in capsys.readouterr().err
        assert main(["reload", "--admin", str(tmp_path / "option")]) == 69
        assert str(tmp_path / "option") in capsys.readouterr().err
        monkeypatch.setenv("EDGEQ_ADMIN", "")
        assert default_admin() == "/run/edgeq/admin.sock"

    def test_a_file_without_a_socket(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The user is told what to say instead."""
        assert main(["reload", "--config", str(file)]) == 2
        assert "--pid" in capsys.readouterr().err

    def test_signal(self, capsys: pytest.CaptureFixture[str]) -> None:
        """--pid sends SIGHUP, to a gateway only; a process that is not there is a failure."""
        wait = [sys.executable, "-c", "import sys; sys.stdin.read()", "/etc/edgeq/edgeq.toml", "edgeq", "reload"]
        with subprocess.Popen(wait, stdin=subprocess.PIPE) as other:
            assert main(["reload", "--pid", str(other.pid)]) == 1
            assert "is not edgeq" in capsys.readouterr().err
            assert other.poll() is None
        ready = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", "edgeq", "serve"]
        child = subprocess.Popen(ready, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()  # a process has no command line yet at the end of its exec
        assert main(["reload", "--pid", str(child.pid)]) == 0
        assert child.wait(timeout=60) == -signal.SIGHUP
        child.stdout.close()
        if child.stdin is not None:
            child.stdin.close()
        assert main(["reload", "--pid", str(child.pid)]) == 1
        assert "No such process" in capsys.readouterr().err
        assert main(["reload", "--pid", "-1"]) == 2


class TestHistory:
    """edgeq show history, as far as it needs no running edgeq (tests/process/test_gateway_storm.py)."""

    @pytest.mark.parametrize(
        ("argv", "says"),
        [
            (["queues", "--file", "x"], "--file and --plot are for history, not for queues"),
            (["history", "--plot"], "--plot is for one resource or worker: edgeq show history upstream/NAME --plot"),
            (["history", "all", "--plot"], "--plot is for one resource or worker"),
            (["history", "upstream/a", "soon", "--file", "x"], "seconds: expected a number from 1 to 3600"),
            (["history", "--file", "x", "upstream/a", "5", "0"], "step: expected a number from 0.1 to 3600"),
            (["queues", "--json", "a", "b"], "too many words: edgeq show queues [MATCH]"),
        ],
    )
    def test_usage(self, argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
        """What does not go together is said, with exit code 2."""
        assert main(["show", *argv]) == 2
        assert says in capsys.readouterr().err

    def test_plot(self) -> None:
        """A chart for each number that there is, with the last and the highest value, in 80 columns."""
        pytest.importorskip("plotille", reason="an extra")
        zeros = dict.fromkeys(("arrivals_per_s", "refused_per_s", "oldest_ms"), 0.0)
        blanks = dict.fromkeys(("connections", "lag_ms", "service_ms"))
        rows = [
            {"at": f"2026-11-26T03:00:{at:02}.000Z", "resource": "upstream/a", "depth": at % 7, "in_flight": at % 4}
            | {"limit": 4, **zeros, **blanks}
            for at in range(60)
        ]
        text = plot(rows)
        assert text.startswith("upstream/a, the 59 s to 2026-11-26 03:00:59 UTC\n")
        assert "in flight: 3 now, 3 at most, limit 4\n" in text
        assert "waiting: 3 now, 6 at most\n" in text
        assert "lag" not in text
        assert max(map(len, text.splitlines())) <= 80
        assert plot(rows[:1]).count("now") == 5
        ticks = next(line for line in plot(rows[:3]).splitlines() if " | -2.0 " in line).split()[1:]
        assert len({*ticks}) == len(ticks)
        assert plot([]) == "(none)\n"

    def test_plot_without_its_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It says what to install."""
        monkeypatch.setitem(sys.modules, "plotille", None)
        with pytest.raises(EdgeqError, match=r"pip install 'edgeq\[plot\]'"):
            plot([])
