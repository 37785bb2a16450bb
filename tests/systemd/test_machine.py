"""edgeq under a real systemd: installed, started, reloaded, restarted, killed, watched, confined, and taken away again.

Where no machine can be booted these tests are skipped, and say why.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeq.admin.commands import COMMANDS
from tests.support.asking import Client
from tests.support.gateway import ROOT
from tests.support.nspawn import Machine, NoMachineError, boot, make
from tests.support.supervised import wait_for

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("EDGEQ_INSTALLED")) and not os.environ.get("EDGEQ_PURE"),
    reason="it installs the interpreted build: once is enough, with `make test-pure`",
)

CONFIG = """\
[server]
workers = 2
admin = "/run/edgeq/admin.sock"
drain_timeout = "1s"
[[listener]]
address = "0.0.0.0:80"
[upstream.demo]
endpoints = ["http://localhost:9000"]
timeouts = { first_byte = FIRST_BYTE }
"""
MODELS = """\
[log]
level = "debug"
[accounts]
store = "/var/lib/edgeq/accounts.sqlite"
log_prompts = true
[provider.openai]
url = "http://127.0.0.1:9001/v1"
keys = ["credential:openai"]
headers = { x-team = "credential:header" }
[provider.other]
url = "http://127.0.0.1:9001/v1"
keys = ["credential:openai"]
[model.well]
targets = [{ provider = "openai", model = "mock/tokens=3" }]
[model.refused]
targets = [{ provider = "other", model = "mock/error=401" }]
[[route]]
name = "models"
match = { path = "/v1/*" }
llm = {}
"""
PROVIDER = """\
[Service]
ExecStart=/usr/local/bin/edgeq demo-llm --listen 127.0.0.1:9001
User=nobody
"""
DROP_IN = "/etc/systemd/system/edgeq.service.d/test.conf"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One for all tests here, with an upstream in it."""
    with contextlib.ExitStack() as stack:
        try:
            booted = stack.enter_context(boot(tmp_path_factory.mktemp("machine")))
        except NoMachineError as error:
            pytest.skip(f"no machine with systemd can be booted here: {error}")
        configure(booted)
        booted.must("systemd-sysusers")
        booted.must("systemd-tmpfiles", "--create", "edgeq.conf")
        demo = "/usr/local/bin/edgeq demo --listen 127.0.0.1:9000"
        booted.write("/etc/systemd/system/demo.service", f"[Service]\nExecStart={demo}\nUser=nobody\n")
        booted.must("systemctl", "daemon-reload")
        booted.must("systemctl", "start", "demo.service")
        yield booted


@pytest.fixture(autouse=True)
def fresh(machine: Machine) -> Iterator[None]:
    """Each test begins with a service that runs as it was installed."""
    configure(machine)
    machine.must("systemctl", "restart", "edgeq")
    yield
    if (machine.root / DROP_IN.lstrip("/")).exists():
        (machine.root / DROP_IN.lstrip("/")).unlink()
        machine.must("systemctl", "daemon-reload")


def configure(machine: Machine, first_byte: str = "30", more: str = "", workers: int = 2) -> None:
    """/etc/edgeq/edgeq.toml."""
    text = CONFIG.replace("FIRST_BYTE", first_byte).replace("workers = 2", f"workers = {workers}")
    machine.write("/etc/edgeq/edgeq.toml", text + more)


def drop_in(machine: Machine, text: str) -> None:
    """Changes of the unit, from the next start on."""
    machine.write(DROP_IN, text)
    machine.must("systemctl", "daemon-reload")


def workers(machine: Machine) -> list[int]:
    """Their pids in the machine."""
    return [row["pid"] for row in json.loads(show_workers(machine)) if row["state"] == "serving"]


def reload(machine: Machine) -> None:
    machine.must("systemctl", "reload", "edgeq")


def restart(machine: Machine) -> None:
    machine.must("systemctl", "restart", "edgeq")


def kill(machine: Machine) -> None:
    """The supervisor, without a warning; until systemd has started another one."""
    pid = machine.show("edgeq", "MainPID")
    machine.must("kill", "-9", pid)
    wait_for("another start", lambda: machine.show("edgeq", "MainPID") not in (pid, "0"))
    wait_for("its end", lambda: machine.show("edgeq", "ActiveState") == "active")


def ask(machine: Machine, what: str) -> str:
    """The admin socket."""
    return machine.must("curl", "-sS", "--unix-socket", "/run/edgeq/admin.sock", f"http://edgeq/v1/{what}")


def show_workers(machine: Machine) -> str:
    return ask(machine, "workers")


def answers(machine: Machine) -> bool:
    """Does a request get its answer?"""
    return machine.run("curl", "-sSf", "-m", "20", "http://127.0.0.1:80/").returncode == 0


class Asked:
    """Clients in the machine."""

    def __init__(self, machine: Machine) -> None:
        self._stop = threading.Event()
        self.clients = [Client(80, number % 2 == 0, self._stop) for number in range(4)]
        machine.call(self._start)

    def _start(self) -> None:
        for client in self.clients:
            client.start()

    def wait_answers(self, count: int) -> None:
        """Until so many more have come."""
        before = sum(client.answered for client in self.clients)
        wait_for(f"{count} answers", lambda: sum(one.answered for one in self.clients) >= before + count, 60)

    def lost(self) -> list[str]:
        """Ends them."""
        self._stop.set()
        for client in self.clients:
            client.join()
        return [lost for client in self.clients for lost in client.lost]


def test_started_means_that_it_serves(machine: Machine) -> None:
    """READY, STATUS and the store as systemd has them; the admin socket belongs to the service."""
    assert answers(machine)
    assert machine.show("edgeq", "StatusText").startswith("2/2 workers, ")
    assert machine.show("edgeq", "NFileDescriptorStore") == "4"
    assert machine.show("edgeq", "WatchdogUSec") == "20s"
    assert len(workers(machine)) == 2


def test_the_hardening_is_in_force(machine: Machine) -> None:
    """As systemd rates it, and as the kernel has it for a worker."""
    rating = machine.must("systemd-analyze", "security", "--no-pager", "--threshold=15", "edgeq")
    assert "Overall exposure level" in rating
    pid = workers(machine)[0]
    status = dict(line.split(":\t", 1) for line in machine.must("cat", f"/proc/{pid}/status").splitlines())
    bind_service = f"{1 << 10:016x}"
    assert {status[f"Cap{kind}"] for kind in ("Prm", "Eff", "Bnd", "Amb")} == {bind_service}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert status["Uid"].split()[0] == machine.must("id", "-u", "edgeq").strip()

    def inside(*words: str) -> subprocess.CompletedProcess[str]:
        return machine.run("nsenter", "-t", str(pid), "-m", *words)

    assert "Read-only file system" in inside("touch", "/etc/edgeq/x").stderr
    assert "Permission denied" in inside("setpriv", "--reuid=edgeq", "--clear-groups", "ls", "/root").stderr
    assert inside("test", "-e", "/dev/kmsg").returncode != 0
    assert inside("test", "-w", "/run/edgeq").returncode == 0


def test_the_supervisor_stands_back_where_it_may(machine: Machine) -> None:
    """By the line in example.conf; its workers are scheduled as usual."""
    example = (Path(__file__).parents[2] / "systemd" / "example.conf").read_text()
    (line,) = [one for one in example.splitlines() if "sched_setscheduler" in one]
    drop_in(machine, f"[Service]\n{line.removeprefix('#')}\n")
    machine.must("systemctl", "restart", "edgeq")
    assert "SCHED_BATCH" in machine.must("chrt", "--pid", machine.show("edgeq", "MainPID"))
    assert "SCHED_OTHER" in machine.must("chrt", "--pid", str(workers(machine)[0]))
    assert answers(machine)


def test_reload(machine: Machine) -> None:
    """A right file is applied by the same process; a wrong one makes the reload fail, and changes nothing."""
    pid = machine.show("edgeq", "MainPID")
    configure(machine, first_byte="31")
    machine.must("systemctl", "reload", "edgeq")
    wait_for("the new configuration", lambda: "upstream.demo.timeouts.first_byte: 30s -> 31s" in machine.journal())
    configure(machine, first_byte='"soon"')
    assert machine.run("systemctl", "reload", "edgeq").returncode != 0
    assert "edgeq.toml:9: upstream.demo.timeouts.first_byte" in machine.journal()
    assert machine.show("edgeq", "MainPID") == pid
    assert answers(machine)


def test_restarts_and_kills_lose_nobody(machine: Machine) -> None:
    """systemd keeps the sockets meanwhile; after kill -9 it starts edgeq again by itself."""
    asked = Asked(machine)
    for _ in range(20):
        asked.wait_answers(50)
        machine.must("systemctl", "restart", "edgeq")
        assert machine.show("edgeq", "NFileDescriptorStore") == "4"
    for _ in range(5):
        asked.wait_answers(50)
        kill(machine)
    asked.wait_answers(50)
    assert asked.lost() == []


def test_reloads_lose_nobody(machine: Machine) -> None:
    """Fifty of them, each of which changes something."""
    asked = Asked(machine)
    for number in range(50):
        asked.wait_answers(5)
        configure(machine, first_byte=str(31 + number))
        reload(machine)
    asked.wait_answers(50)
    assert asked.lost() == []
    key = "upstream.demo.timeouts.first_byte"
    (said,) = json.loads(ask(machine, f"config?match={key}"))
    assert said["value"] == "80s"


def test_workers_and_listeners_come_and_go(machine: Machine) -> None:
    """In a reload, over a restart and over a kill: who asks a listener that stays loses nothing. A service has less
    rights than most of our tests, and there are kernels on which that tells here (bpf_io.refuse_new)."""
    other = '[[listener]]\naddress = "127.0.0.1:8081"\n'
    asked = Asked(machine)
    for how in (reload, restart, kill):
        for number, more in ((4, other), (1, ""), (2, "")):
            asked.wait_answers(50)
            configure(machine, more=more, workers=number)
            how(machine)
            kept = 2 + number * (2 if more else 1)
            wait_for("its sockets", lambda kept=kept: machine.show("edgeq", "NFileDescriptorStore") == str(kept))  # type: ignore[misc]
            assert (machine.run("curl", "-sSf", "http://127.0.0.1:8081/").returncode == 0) == bool(more)
    asked.wait_answers(50)
    assert asked.lost() == []
    assert "Traceback" not in machine.journal()


def test_the_watchdog(machine: Machine) -> None:
    """A worker that stands still has all of it started again; what waits is served, and that worker ends."""
    drop_in(machine, "[Service]\nWatchdogSec=2\n")
    machine.must("systemctl", "restart", "edgeq")
    restarts = machine.show("edgeq", "NRestarts")
    victim = workers(machine)[0]
    machine.must("kill", "-STOP", str(victim))
    wait_for("a restart", lambda: machine.show("edgeq", "NRestarts") != restarts, 60)
    wait_for("the service", lambda: machine.show("edgeq", "ActiveState") == "active", 60)
    assert "Watchdog timeout" in machine.journal()
    assert "no progress: the watchdog is not told" in machine.journal()
    assert answers(machine)
    wait_for("its end", lambda: machine.run("test", "-e", f"/proc/{victim}").returncode != 0, 60)


def test_a_wrong_configuration_is_not_tried_again(machine: Machine) -> None:
    """Exit code 78 ends the restarts; the journal has the line."""
    configure(machine, first_byte='"soon"')
    assert machine.run("systemctl", "restart", "edgeq").returncode != 0
    assert machine.show("edgeq", "ActiveState") == "failed"
    assert machine.show("edgeq", "ExecMainStatus") == "78"
    assert "edgeq.toml:9: " in machine.journal()


def test_a_wrong_configuration_can_be_waited_out(machine: Machine) -> None:
    """With the example's lines: systemd keeps the sockets while it tries, and who waits is served when the file is
    right."""
    text = (ROOT / "systemd/example.conf").read_text()
    part = text[text.index("# --- a wrong configuration is tried again") :].partition("\n\n")[0]
    drop_in(machine, "\n".join(line[1:] for line in part.splitlines() if not line.startswith("# ")) + "\n")
    configure(machine, first_byte='"soon"')
    assert machine.run("systemctl", "restart", "edgeq").returncode != 0
    waiting = machine.call(lambda: [socket.create_connection(("127.0.0.1", 80), timeout=60) for _ in range(8)])
    for sock in waiting:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    tries = int(machine.show("edgeq", "NRestarts"))
    wait_for("two more tries", lambda: int(machine.show("edgeq", "NRestarts")) >= tries + 2)
    configure(machine)
    wait_for("its start", lambda: machine.show("edgeq", "ActiveState") == "active")
    for sock in waiting:
        with sock:
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_sockets_and_credentials_from_systemd(machine: Machine) -> None:
    """edgeq.socket listens before the service is there, which has no capability then; a key that only root can read."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost"
    machine.must(*command.split(), "-keyout", "/root/key.pem", "-out", "/root/cert.pem")
    drop_in(
        machine,
        "[Unit]\nRequires=edgeq.socket\nAfter=edgeq.socket\n[Service]\nAmbientCapabilities=\nCapabilityBoundingSet=\n"
        "PrivateUsers=yes\nSocketBindDeny=any\nSocketBindAllow=tcp:8443\n"
        "LoadCredential=cert.pem:/root/cert.pem\nLoadCredential=key.pem:/root/key.pem\n",
    )
    tls = (
        '[[listener]]\naddress = "[::]:80"\n[[listener]]\naddress = "127.0.0.1:8443"\n[[listener.tls.certificates]]\n'
        'certificate = "credential:cert.pem"\nkey = "credential:key.pem"\n'
    )
    configure(machine, more=tls)
    machine.must("systemctl", "stop", "edgeq")
    machine.must("systemctl", "start", "edgeq.socket")
    try:
        assert machine.show("edgeq", "ActiveState") == "inactive"
        assert answers(machine)  # which starts it
        assert machine.run("curl", "-sSf", "http://[::1]:80/").returncode == 0
        assert machine.run("curl", "-sSfk", "https://127.0.0.1:8443/").returncode == 0
        wait_for("its start", lambda: machine.show("edgeq", "ActiveState") == "active")  # a first worker serves before
        configure(machine, first_byte="31", more=tls)
        machine.must("systemctl", "reload", "edgeq")  # what checks the file first cannot see the credentials
        wait_for("the new configuration", lambda: "upstream.demo.timeouts.first_byte: 30s -> 31s" in machine.journal())
        status = machine.must("cat", f"/proc/{workers(machine)[0]}/status")
        assert "CapEff:\t0000000000000000" in status
        machine.must("systemd-analyze", "security", "--no-pager", "--threshold=12", "edgeq")
    finally:
        machine.must("systemctl", "stop", "edgeq.socket", "edgeq")


def ask_a_model(machine: Machine, virtual_key: str, model: str) -> int:
    """The status of its answer."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}]})
    how = ("-sS", "-m", "60", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"authorization: Bearer {virtual_key}")
    return int(machine.must("curl", *how, "http://127.0.0.1:80/v1/chat/completions", "-d", body))


def keys_seen(machine: Machine) -> set[str]:
    """Those by which the provider has been asked."""
    stats = json.loads(machine.must("curl", "-sS", "http://127.0.0.1:9001/stats"))
    return {who.partition(" ")[0] for who in stats}


def told_as(*keys: str) -> set[str]:
    """How the provider tells them: nobody is to read a key in its counts."""
    return {f"sha256:{hashlib.sha256(key.encode()).hexdigest()[:12]}" for key in keys}


def everything_told(machine: Machine) -> dict[str, str]:
    """By where it stands: whatever edgeq says of itself, in every way that it has."""
    told = {"the whole journal": machine.must("journalctl", "--no-pager", "--all", "-o", "json")}
    ways = {one.path for one in COMMANDS if one.method == "GET" and one.path != "/v1/events/follow"}
    for path in sorted(ways):
        told[path] = machine.run("curl", "-sS", "--unix-socket", "/run/edgeq/admin.sock", f"http://edgeq{path}").stdout
    for words in (("show", "config", "--json"), ("show", "config"), ("explain",)):
        told[" ".join(words)] = machine.run("/usr/local/bin/edgeq", *words).stdout
    for pid in (*workers(machine), machine.show("edgeq", "MainPID")):
        told[f"process {pid}"] = machine.must("cat", f"/proc/{pid}/cmdline", f"/proc/{pid}/environ")
    assert "openai" in told["/v1/config"]
    assert "credential:openai" in told["show config"]
    return told


def test_keys_of_providers_from_systemd(machine: Machine) -> None:
    """Only root can read them; the provider gets them, and nobody else is told: not by any command, log or file, also
    where the provider has refused. A worker's successor, a reload, and a crash of the supervisor know them as well."""
    keys = {"openai": "sk-first-secret", "header": "team-secret"}
    machine.write("/etc/systemd/system/demo-llm.service", PROVIDER)
    loads = ""
    for name, key in keys.items():
        machine.write(f"/root/{name}.key", f"{key}\n")
        machine.must("chmod", "600", f"/root/{name}.key")
        loads += f"LoadCredential={name}:/root/{name}.key\n"
    configure(machine, more=MODELS)
    drop_in(machine, f"[Service]\n{loads}")
    machine.must("systemctl", "restart", "demo-llm", "edgeq")
    wait_for("the provider", lambda: machine.run("curl", "-sSf", "http://127.0.0.1:9001/health").returncode == 0)
    virtual_key = json.loads(machine.must("/usr/local/bin/edgeq", "keys", "create", "--tenant", "t", "--json"))["key"]
    assert ask_a_model(machine, virtual_key, "well") == 200
    assert ask_a_model(machine, virtual_key, "refused") == 502
    assert keys_seen(machine) == told_as(keys["openai"])
    wait_for("usage that is stored", lambda: '"requests":' in machine.must("/usr/local/bin/edgeq", "usage", "--json"))

    machine.must("systemctl", "reload", "edgeq")
    for pid in workers(machine):
        machine.must("kill", "-9", str(pid))
        wait_for("its successor", lambda pid=pid: pid not in (now := workers(machine)) and len(now) == 2)  # type: ignore[misc]
    assert ask_a_model(machine, virtual_key, "well") == 200
    kill(machine)
    assert ask_a_model(machine, virtual_key, "well") == 200
    assert keys_seen(machine) == told_as(keys["openai"])

    for where, text in everything_told(machine).items():
        for key in keys.values():
            assert key not in text, f"{key} stands in {where}"
    folders = ("/etc/edgeq", "/run/edgeq", "/var/lib/edgeq", "/var/log/edgeq")
    for key in keys.values():
        assert machine.run("grep", "-rF", key, *folders).stdout == ""

    # As example.conf says: a new key needs a restart, a new name as well; one that is missing is told by its name.
    configure(machine, more=MODELS.replace("credential:header", "credential:other"))
    machine.must("systemctl", "reload", "edgeq")
    wait_for("a refusal", lambda: "LoadCredential=other:FILE in the unit" in machine.journal())
    configure(machine, more=MODELS)
    machine.write("/root/openai.key", "sk-second-secret\n")
    machine.must("systemctl", "restart", "edgeq")
    assert ask_a_model(machine, virtual_key, "well") == 200
    assert keys_seen(machine) == told_as(keys["openai"], "sk-second-secret")
    drop_in(machine, "[Service]\n")
    assert machine.run("systemctl", "restart", "edgeq").returncode != 0
    assert machine.show("edgeq", "ExecMainStatus") == "78"
    assert "LoadCredential=openai:FILE in the unit" in machine.journal()


def test_stopped_means_gone(machine: Machine) -> None:
    """No process, no socket, no descriptor is left."""
    pids = workers(machine)
    machine.must("systemctl", "stop", "edgeq")
    assert machine.show("edgeq", "Result") == "success"
    assert machine.show("edgeq", "NFileDescriptorStore") == "0"
    assert all(machine.run("test", "-e", f"/proc/{pid}").returncode != 0 for pid in pids)
    assert not answers(machine)


def test_uninstalled_leaves_only_the_configuration(machine: Machine, tmp_path: Path) -> None:
    """`make uninstall` takes what `make install` brought, and no more. The last test: there is no service after it."""
    make("uninstall", tmp_path, machine.root)
    found = machine.must("find", "/usr/local", "/etc/edgeq", "-name", "*edgeq*").split()
    assert found == ["/etc/edgeq", "/etc/edgeq/edgeq.toml"]
