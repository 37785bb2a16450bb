"""Whole configurations, right and wrong."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edgeq.config.base import Duration, Size
from edgeq.config.credentials_io import read_header
from edgeq.config.load import (
    NO_OVERRIDES,
    Overrides,
    admin_path,
    load_file,
    load_text,
    quickstart,
    read_file,
    read_text,
)
from edgeq.config.schema import PreparedAnswer, RouteCache, RouteFallback, Trace
from edgeq.config.shown import masked_trace
from edgeq.errors import EXIT_CONFIG, ConfigError

GOOD = """
[[listener]]
address = "127.0.0.1:8080"
[upstream.api]
endpoints = ["http://127.0.0.1:9000"]
"""


def test_changes_are_kept_beside_a_file_only(tmp_path: Path) -> None:
    """What is no file (the demo, the command line) has no place for them, unless it names one."""
    file = tmp_path / "edgeq.toml"
    file.write_text(GOOD)
    assert read_file(str(file)).changes_file == f"{file}.d/changes.toml"
    assert read_text(GOOD, "the demo's configuration").changes_file == ""
    assert quickstart("127.0.0.1:80", "http://a").changes_file == ""
    assert read_text(f'[server]\nchanges = "/c"\n{GOOD}', "x").changes_file == "/c"


def problems(text: str, name: str = "edgeq.toml", overrides: Overrides = NO_OVERRIDES) -> list[str]:
    """The problems of a configuration as they are printed."""
    try:
        load_text(text, name, overrides)
    except ConfigError as error:
        return str(error).splitlines()
    return []


def with_(line: str) -> str:
    """A good configuration, and something on line 6."""
    return f"{GOOD}{line}\n"


def needs_otel() -> None:
    """Without its package [trace] is a mistake in itself."""
    pytest.importorskip("opentelemetry.proto", reason='the extra "otel" is not installed')


def load_trace(text: str) -> Trace:
    needs_otel()
    trace = load_text(text, "f").config.trace
    assert trace is not None
    return trace


def test_the_smallest_file() -> None:
    """Nothing is required but an address and an endpoint; what load promises is filled in."""
    config = load_text(GOOD, "f").config
    assert config.listener[0].name == "127.0.0.1:8080"
    assert [(route.name, route.upstream, route.match.path) for route in config.route] == [("default", "api", "/*")]


def test_units_arrive() -> None:
    """Durations and sizes keep their types, so that nobody mistakes one for the other."""
    text = (
        GOOD
        + '[upstream.api.pool]\nidle_timeout = "1m"\n[[route]]\nname = "a"\nupstream = "api"\nbody_bytes = "1KiB"\n'
    )
    config = load_text(text, "f").config
    assert config.upstream["api"].pool.idle_timeout == Duration(60)
    assert isinstance(config.upstream["api"].pool.idle_timeout, Duration)
    assert config.route[0].body_bytes == Size(1024)
    assert isinstance(config.route[0].body_bytes, Size)


def test_all_problems_at_once() -> None:
    """One run names everything that is wrong, in the order of the file, each with its line and key."""
    text = """\
[server]
workers = -1
[[listener]]
address = "0.0.0.0:8080"
[listener.tls]
min_version = "1.1"
[[listener]]
address = "0.0.0.0:8080"
proxy_protocol = true
timeouts = { head = "5x", body = true }
[upstream.api]
endpoints = ["http://a:1/x"]
[upstream.api.pool]
max_idl = 5
[[route]]
name = "r"
upstream = "ap"
match = { path = "/a*b" }
"""
    found = [line.split(": ")[:2] for line in problems(text)]
    assert found == [
        ["edgeq.toml:2", "server.workers"],
        ["edgeq.toml:5", "listener[0].tls.certificates"],
        ["edgeq.toml:6", "listener[0].tls.min_version"],
        ["edgeq.toml:8", "listener[1].address"],
        ["edgeq.toml:9", "listener[1].proxy_protocol"],
        ["edgeq.toml:10", "listener[1].timeouts.head"],
        ["edgeq.toml:10", "listener[1].timeouts.body"],
        ["edgeq.toml:12", "upstream.api.endpoints[0]"],
        ["edgeq.toml:14", "upstream.api.pool.max_idl"],
        ["edgeq.toml:17", "route[0].upstream"],
        ["edgeq.toml:18", "route[0].match.path"],
    ]


def test_a_typo_is_recognised() -> None:
    """The message as a user sees it, with the key that was probably meant."""
    assert problems(with_("[upstream.api.pool]\nmax_idl = 5")) == [
        "edgeq.toml:7: upstream.api.pool.max_idl: unknown key (did you mean max_idle?)"
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[upstrem.b]", "edgeq.toml:6: upstrem: unknown key (did you mean upstream?)"),
        ("server = 5", "edgeq.toml:6: upstream.api.server: unknown key"),
        ("[server]\nworkers = 2000", "edgeq.toml:7: server.workers: may be 1024 at most"),
        ("[server]\nworkers = true", "edgeq.toml:7: server.workers: expected an integer, got true"),
        ("[server]\nadmin = 1979-05-27", "edgeq.toml:7: server.admin: expected a string, got a date or time"),
        ('[server]\nadmin = "a\\u0000b"', "edgeq.toml:7: server.admin: contains a control character"),
        ('[server]\nuser = "no such user"', 'edgeq.toml:7: server.user: there is no user "no such user"'),
        ('[server]\nadmin_mode = "rw"', 'edgeq.toml:7: server.admin_mode: a mode is written in octal: "0660"'),
        ('[server]\nadmin_mode = "0999"', 'edgeq.toml:7: server.admin_mode: a mode is written in octal: "0660"'),
        ("[server]\nadmin_mode = 660", "edgeq.toml:7: server.admin_mode: expected a string, got an integer"),
        ('[server]\nadmin_group = "no such"', 'edgeq.toml:7: server.admin_group: there is no group "no such"'),
        ('[server]\nhistory = "500ms"', "edgeq.toml:7: server.history: must be from 1s to 1h; 0 keeps nothing"),
        ('[server]\nhistory = "2h"', "edgeq.toml:7: server.history: must be from 1s to 1h; 0 keeps nothing"),
        ('[server]\nhistory = "long"', "edgeq.toml:7: server.history: "),
        (
            '[server]\nhistory = 0\ndumps = "/x"',
            "edgeq.toml:8: server.dumps: there is nothing to write: server.history is 0",
        ),
        ('[server]\ndumps = "x"', 'edgeq.toml:7: server.dumps: must be an absolute path: "/var/lib/edgeq"'),
        ('[accounts]\nstore = "x"', "edgeq.toml:7: accounts.store: must be an absolute path"),
        ('[accounts]\nstore = "/none/x"', 'edgeq.toml:7: accounts.store: the directory "/none" does not exist'),
        ('[accounts]\nstore = "/"', 'edgeq.toml:7: accounts.store: "/" is a directory'),
        ('[accounts]\nstore = "/tmp/x"\nflush = 0', "edgeq.toml:8: accounts.flush: must be more than 0"),
        ('[server]\nmetrics = "9100"', "edgeq.toml:7: server.metrics: no port: write ADDRESS:PORT"),
        ('[server]\nmetrics = "unix:/x"', "edgeq.toml:7: server.metrics: the admin socket has /metrics"),
        ('[server]\nstuck.after = "500ms"', "edgeq.toml:7: server.stuck.after: must be 1s at least, or 0"),
        (
            '[server]\nstuck.after = "20s"\nstuck.restart = "10s"',
            "edgeq.toml:8: server.stuck.restart: must be server.stuck.after at least, or 0",
        ),
        ('[server]\nstuck = "10s"', "edgeq.toml:7: server.stuck: expected a table, got a string"),
        ('[server]\nstuck.restat = "10s"', "edgeq.toml:7: server.stuck.restat: unknown key (did you mean restart?)"),
        ("[[listener]]", "edgeq.toml:6: listener[1].address: missing"),
        (
            '[[listener]]\naddress = "x"',
            'edgeq.toml:7: listener[1].address: no port: write ADDRESS:PORT, such as "x:8080"',
        ),
        ('[[listener]]\naddress = "[::]:1"\nbacklog = 0', "edgeq.toml:8: listener[1].backlog: must be more than 0"),
        (
            '[[listener]]\naddress = "[::]:1"\nipv6_client_prefix = 0',
            "edgeq.toml:8: listener[1].ipv6_client_prefix: must be from 1 to 128",
        ),
        (
            '[[listener]]\naddress = "[::]:1"\nipv6_client_prefix = 129',
            "edgeq.toml:8: listener[1].ipv6_client_prefix: must be from 1 to 128",
        ),
        (
            '[[listener]]\naddress = "[::]:1"\nname = "127.0.0.1:8080"',
            'edgeq.toml:8: listener[1].name: listener[0] has the name "127.0.0.1:8080" already',
        ),
        (
            '[[listener]]\naddress = "[::]:1"\n[listener.limits]\nmin_body_rate = "240/s"',
            "edgeq.toml:9: listener[1].limits.min_body_rate: ",
        ),
        (
            '[[listener]]\naddress = "[::]:1"\n[listener.limits]\nmin_answer_rate = -1',
            "edgeq.toml:9: listener[1].limits.min_answer_rate: must not be negative",
        ),
        (
            '[[listener]]\naddress = "[::]:1"\n[listener.limits]\nhead_rate = 1',
            "edgeq.toml:9: listener[1].limits.head_rate: unknown key (did you mean min_head_rate?)",
        ),
        ('[upstream."a b"]\nendpoints = ["http://a"]', 'edgeq.toml:6: upstream."a b": a name has at most 64 letters'),
        ("[upstream.b]\nendpoints = []", "edgeq.toml:7: upstream.b.endpoints: an upstream needs an endpoint at least"),
        ('[upstream.b]\nendpoints = "http://a"', "edgeq.toml:7: upstream.b.endpoints: expected an array, got a string"),
        (
            '[upstream.b]\nendpoints = ["http://a",\n"http://A:80"]',
            "edgeq.toml:8: upstream.b.endpoints[1]: the same endpoint as endpoints[0]",
        ),
        (
            '[upstream.b]\nendpoints = [{ url = "http://a", weight = 1001 }]',
            "edgeq.toml:7: upstream.b.endpoints[0].weight: must be from 0 to 1000",
        ),
        (
            '[upstream.b]\nendpoints = [{ url = "http://a/x" }]',
            "edgeq.toml:7: upstream.b.endpoints[0]: endpoint 'http://a/x': must not have a path",
        ),
        ("[upstream.b]\nendpoints = [5]", "edgeq.toml:7: upstream.b.endpoints[0]: expected a string, got an integer"),
        (
            'limit = "fast"',
            (
                'edgeq.toml:6: upstream.api.limit: expected one of "adaptive", "aimd", "gradient2", "observe", or an '
                "integer"
            ),
        ),
        ('balance = "p2c"', 'edgeq.toml:6: upstream.api.balance: expected one of "consistent-hash"'),
        (
            'hash_key = "header"',
            'edgeq.toml:6: upstream.api.hash_key: expected "client-address", "path", "header:NAME"',
        ),
        ('engine = "vllm"\nbalance = "round-robin"', "edgeq.toml:6: upstream.api.engine: what engines say"),
        ('hash_key = "header:a b"', 'edgeq.toml:6: upstream.api.hash_key: expected "client-address", "path"'),
        ('sticky_cookie = "a;b"', "edgeq.toml:6: upstream.api.sticky_cookie: a cookie's name is one word"),
        ("panic_threshold = 2", "edgeq.toml:6: upstream.api.panic_threshold: a share is from 0 to 1"),
        ("[upstream.api.eject]\nmax_share = 1.5", "edgeq.toml:7: upstream.api.eject.max_share: a share is from 0 to 1"),
        ("[upstream.api.breaker]\nprobes = 0", "edgeq.toml:7: upstream.api.breaker.probes: must be more than 0"),
        ('[upstream.api.health]\npath = "up"', 'edgeq.toml:7: upstream.api.health.path: a path begins with "/"'),
        (
            "[upstream.api.health]\nstatus = [200, 99]",
            "edgeq.toml:7: upstream.api.health.status[1]: must be from 200 to 599",
        ),
        ("health = 5", "edgeq.toml:6: upstream.api.health: expected a table, got an integer"),
        ('[upstream.b]\nendpoints = ["http://a"]', "edgeq.toml: route: no route: with several upstreams (api, b)"),
        ('[upstream.api.tls]\nkey = "k"', "edgeq.toml:7: upstream.api.tls.key: a key without a certificate"),
        ("[upstream.api.timeouts]\nconnect = 0", "edgeq.toml:7: upstream.api.timeouts.connect: must be more than 0"),
        ('[upstream.api.timeouts]\nbody = "-1s"', "edgeq.toml:7: upstream.api.timeouts.body: must not be negative"),
        ('[[route]]\nname = "r"', "edgeq.toml:6: route[0].upstream: missing"),
        (
            '[[route]]\nname = "r"\nupstream = "api"\nbody_bytes = -2',
            "edgeq.toml:9: route[0].body_bytes: must not be negative",
        ),
        (
            '[[route]]\nname = "r"\nupstream = "api"\n[[route]]\nname = "r"\nupstream = "api"\nmatch.path = "/x"',
            'edgeq.toml:10: route[1].name: route[0] has the name "r" already',
        ),
        (
            '[[route]]\nname = "r"\nupstream = "api"\n[[route]]\nname = "s"\nupstream = "api"',
            'edgeq.toml:9: route[1].match: is never reached: route "r" matches the same before it',
        ),
        (
            '[[route]]\nname="r"\nupstream="api"\nmatch.path="/!"\n[[route]]\nname="s"\nupstream="api"\nmatch.path="/%21"',
            'edgeq.toml:13: route[1].match: is never reached: route "r" matches the same before it',
        ),
        ('[access_log]\ntarget = "sdtout"', 'edgeq.toml:7: access_log.target: expected "stdout", "off" or the path'),
        (
            '[access_log]\ntarget = "/no/such/x.log"',
            'edgeq.toml:7: access_log.target: the directory "/no/such" does not',
        ),
        ('[access_log]\ntarget = "/tmp/"', 'edgeq.toml:7: access_log.target: "/tmp/" is a directory'),
        ('[log]\nlevel = "warn"', "edgeq.toml:7: log.level: expected one of"),
        ('[dns]\nmin_ttl = "1h"', "edgeq.toml:7: dns.min_ttl: is larger than max_ttl"),
        ('[dns]\nnameservers = ["dns"]', "edgeq.toml:7: dns.nameservers[0]:"),
    ],
)
def test_single_problems(line: str, says: str) -> None:
    """Each mistake is blamed once, on its own line and key, and nothing else is."""
    routes = "" if "no route" in says or "[[route]]" in line else '\n[[route]]\nname = "r"\nupstream = "api"'
    found = problems(with_(line) + routes)
    assert len(found) == 1, found
    assert found[0].startswith(says)


def test_an_empty_file() -> None:
    """What must be there is named, with an example."""
    assert [line.split(": ")[:2] for line in problems("")] == [["edgeq.toml", "listener"], ["edgeq.toml", "upstream"]]


def test_broken_toml() -> None:
    """Line and column of a mistake in TOML's syntax, also at the end of the file."""
    assert problems('a = 1\nb = "x\n') == ["edgeq.toml:2: no valid TOML: Illegal character '\\n' (column 7)"]
    assert problems("a = 1\n[x")[0].startswith("edgeq.toml:2: no valid TOML: ")
    assert problems("a = " + "[" * 5000) == ["edgeq.toml: no valid TOML: nested too deeply"]
    assert "edgeq.toml: no valid TOML: Exceeds the limit (4300 digits)" in problems("a = " + "9" * 5000)[0]


def test_windows_line_ends() -> None:
    """Lines are counted alike."""
    assert problems(with_("[server]\nworkers = -1").replace("\n", "\r\n")) == [
        "edgeq.toml:7: server.workers: must not be negative"
    ]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a directory, and bytes that are no text."""
    for path, says in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=says):
            load_file(str(path))
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"a = 1\nb = '\xe9'\n")
    with pytest.raises(ConfigError, match=":2: the file is not UTF-8"):
        load_file(str(latin))


def test_options_are_stronger_than_the_file() -> None:
    """--listen, --workers and --admin replace what the file says, and are blamed by their own names."""
    config = load_text(GOOD, "f", Overrides("[::1]:1", 3, "/run/a")).config
    assert (config.listener[0].address, config.server.workers, config.server.admin) == ("[::1]:1", 3, "/run/a")
    with pytest.raises(ConfigError) as caught:
        load_text(GOOD, "f", Overrides("nowhere", -3))
    assert {problem.key_path for problem in caught.value.problems} == {"--listen", "--workers"}
    two = GOOD + '[[listener]]\naddress = "[::]:1"'
    with pytest.raises(ConfigError, match="2 listeners"):
        load_text(two, "f", Overrides("[::1]:1"))


@pytest.mark.parametrize("text", ["listener = 5", "listener = [5]", "server = 5\nlistener = []", "listener = [[]]"])
def test_options_over_a_broken_file(text: str) -> None:
    """A file that is wrong where the options are written is still only reported."""
    with pytest.raises(ConfigError):
        load_text(text, "f", Overrides("[::1]:1", 3, "/run/a"))


def test_quickstart() -> None:
    """Two options make a whole configuration; what is wrong with them is said in their words."""
    config = quickstart("127.0.0.1:80", "http://127.0.0.1:90", 2, "/run/a").build()
    assert config.upstream["default"].endpoints == ("http://127.0.0.1:90",)
    assert (config.route[0].upstream, config.server.workers, config.server.admin) == ("default", 2, "/run/a")
    with pytest.raises(ConfigError) as caught:
        quickstart("127.0.0.1", "x", -1).build()
    assert sorted(str(problem).split(": ")[:2] for problem in caught.value.problems) == [
        ["command line", "--listen"],
        ["command line", "--upstream"],
        ["command line", "--workers"],
    ]
    assert caught.value.exit_code == EXIT_CONFIG


def test_the_admin_socket_of_a_wrong_file(tmp_path: Path) -> None:
    """The socket is found although the file has mistakes elsewhere: that is when `edgeq reload` matters."""
    file = tmp_path / "f.toml"
    file.write_text('[server]\nadmin = "/run/a"\nworkers = "x"\n')
    assert admin_path(str(file)) == "/run/a"
    file.write_text("server = 5")
    assert admin_path(str(file)) == ""


def test_the_example_is_right() -> None:
    """The example in the repository passes, and every key that it shows commented out exists with that default."""
    needs_otel()
    example = Path(__file__).parents[2] / "edgeq.toml.example"
    config = load_file(str(example)).config
    shown = "\n".join(
        line.removeprefix("# ") if " = " in line or line.startswith("# [") else line
        for line in example.read_text().splitlines()[4:]
        if not any(key in line for key in ("[listener.tls]", "# certificates", "# min_version", "# client_ca"))
    )
    # Without its table nothing is traced; with it, and nothing else said, the defaults hold.
    assert load_text(shown, "shown").config == replace(config, trace=Trace())


_TABLES = [
    "listener",
    "upstream",
    "route",
    "server",
    "dns",
    "tls",
    "certificates",
    "match",
    "pool",
    "timeouts",
    "limits",
]
_KEYS = [*_TABLES, "address", "endpoints", "name", "path", "workers", "head", "nameservers", "x"]


def _nested(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """One of those, or a list or table of them."""
    return st.one_of(inner, st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4))


_SCALARS: st.SearchStrategy[object] = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.sampled_from(["", "a", "http://a", "1.2.3.4:5", "1s", "/*"])
)
_JSON = _nested(_nested(_nested(_SCALARS)))


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {_toml(item)}' for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)


@given(st.dictionaries(st.sampled_from(_KEYS), _JSON, max_size=6))
def test_any_document_is_loaded_or_refused(document: dict[str, object]) -> None:
    """No document raises anything but ConfigError, and every problem has a line that exists or names the whole file."""
    text = "".join(f"{key} = {_toml(value)}\n" for key, value in document.items())
    tomllib.loads(text)
    found = problems(text, "f", Overrides(workers=1))
    assert all(0 < int(line.split(":")[1]) <= text.count("\n") for line in found if line[2] != " ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs, an encrypted key, and a file that is neither."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("a", "b"):
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=test"
        subprocess.run(
            [*command.split(), "-keyout", f"{name}.key", "-out", f"{name}.pem"],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    command = "openssl ec -aes256 -passout pass:test -in a.key -out locked.key"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    (folder / "both.pem").write_text((folder / "a.pem").read_text() + (folder / "a.key").read_text())
    (folder / "text").write_text("hello\n")
    return folder


class TestCertificates:
    """Certificates, keys and CAs are opened and compared."""

    @pytest.mark.parametrize(("certificate", "key"), [("a.pem", "a.key"), ("both.pem", "")])
    def test_right(self, folder: Path, certificate: str, key: str) -> None:
        """A pair of files, or one file with both."""
        assert self.found(folder, certificate, key) == []

    @pytest.mark.parametrize(
        ("certificate", "key", "blamed", "says"),
        [
            ("none.pem", "a.key", "9: listener[1].tls.certificates[0].certificate", "cannot be read: No such file"),
            ("a.pem", "none.key", "10: listener[1].tls.certificates[0].key", "cannot be read: No such file"),
            ("a.pem", "b.key", "10: listener[1].tls.certificates[0].key", "does not belong to the certificate"),
            ("text", "a.key", "9: listener[1].tls.certificates[0].certificate", "holds no certificate"),
            ("a.pem", "text", "10: listener[1].tls.certificates[0].key", "holds no private key"),
            ("a.pem", "", "9: listener[1].tls.certificates[0].certificate", "holds no private key"),
            ("a.pem", "locked.key", "10: listener[1].tls.certificates[0].key", "is encrypted"),
        ],
    )
    def test_wrong(self, folder: Path, certificate: str, key: str, blamed: str, says: str) -> None:
        """The file that is to blame is named at its own line."""
        found = self.found(folder, certificate, key)
        assert len(found) == 1
        assert found[0].startswith(f"f:{blamed}: ")
        assert says in found[0]

    def test_cas(self, folder: Path) -> None:
        """CAs of clients and of upstreams."""
        good = with_(f'[upstream.api.tls]\nca = "{folder}/a.pem"')
        assert problems(good) == []
        bad = with_(f'[upstream.api.tls]\nca = "{folder}/text"')
        assert problems(bad) == [f'edgeq.toml:7: upstream.api.tls.ca: "{folder}/text" holds no certificate in PEM form']

    def test_credentials(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """ "credential:NAME" is a file of the folder that systemd names, and nothing outside of it."""
        text = with_('[upstream.api.tls]\nca = "credential:a.pem"\ncertificate = "credential:a.pem"')
        text += 'key = "credential:a.key"\n[[listener]]\naddress = "[::]:1"\n[[listener.tls.certificates]]\n'
        text += 'certificate = "credential:both.pem"\n'
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
        found = problems(text, "f")
        assert [line.partition(": ")[0] for line in found] == ["f:7", "f:8", "f:9", "f:13"]
        assert all("there are no credentials here ($CREDENTIALS_DIRECTORY is not set)" in line for line in found)
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
        assert problems(text, "f") == []
        tls = load_text(text, "f").config.upstream["api"].tls
        assert (tls.ca, tls.certificate, tls.key) == (f"{folder}/a.pem", f"{folder}/a.pem", f"{folder}/a.key")
        for name, says in (
            ("none", 'there is no credential "none": LoadCredential=none:FILE in the unit'),
            ("../a.key", '"../a.key" is no name of a credential'),
            ("..", '".." is no name of a credential'),
            ("", '"" is no name of a credential'),
        ):
            wrong = problems(text.replace("credential:a.key", f"credential:{name}"), "f")
            assert len(wrong) == 1
            assert wrong[0].startswith(f"f:9: upstream.api.tls.key: {says}")

    def test_credentials_that_are_hidden(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """systemd 252 names the folder to ExecReload= as well, but hides it: there they are left to the service. All
        else is judged, and so are they where a service starts."""
        needs_otel()
        text = with_('[upstream.api.tls]\ncertificate = "credential:a.pem"\nkey = "credential:a.key"')
        text += '[trace.headers]\na = "credential:token"\n'
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", f"{folder}/hidden")
        monkeypatch.delenv("MAINPID", raising=False)
        assert [line.partition(": ")[0] for line in problems(text, "f")] == ["f:7", "f:8", "f:10"]
        monkeypatch.setenv("MAINPID", "1")
        assert problems(text, "f") == []
        wrong = text.replace("credential:a.key", "credential:../a.key").replace("[trace.h", "[tracer.h")
        assert [line.partition(": ")[0] for line in problems(wrong, "f")] == ["f:8", "f:9"]
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
        assert [line.partition(": ")[0] for line in problems(text, "f")] == ["f:10"]

    def test_secrets_of_headers(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A header's value may come from the environment or a credential. It is checked without being told, and the
        configuration keeps the name."""
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
        (folder / "token").write_text("Bearer s3cret\n")
        (folder / "bad").write_text("s3cret\r\nx: y")
        (folder / "empty").write_text("\n")
        monkeypatch.setenv("EDGEQ_TOKEN", "s3cret")
        text = with_('[trace.headers]\na = "credential:token"\nb = "env:EDGEQ_TOKEN"\nc = "s3cret"')
        headers = load_trace(text).headers
        assert headers == {"a": "credential:token", "b": "env:EDGEQ_TOKEN", "c": "s3cret"}
        assert [read_header(one) for one in headers.values()] == ["Bearer s3cret", "s3cret", "s3cret"]
        shown = masked_trace(load_trace(text))
        assert shown.headers == {"a": "credential:token", "b": "env:EDGEQ_TOKEN", "c": "***"}
        for name, says in (
            ("bad", 'the credential "bad" is no value of a header'),
            ("empty", 'the credential "empty" is empty'),
            ("none", 'there is no credential "none"'),
            ("../token", '"../token" is no name of a credential'),
        ):
            (wrong,) = problems(text.replace("credential:token", f"credential:{name}"), "f")
            assert wrong.startswith(f"f:7: trace.headers.a: {says}")
            assert "s3cret" not in wrong
        monkeypatch.setenv("EDGEQ_TOKEN", "")
        (wrong,) = problems(text, "f")
        assert wrong == 'f:8: trace.headers.b: the variable "EDGEQ_TOKEN" is empty'

    def test_a_missing_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who asks for spans without the package that encodes them is told what to install."""
        needs_otel()
        assert problems(with_("[trace]")) == []
        monkeypatch.setattr("edgeq.config.files_io.find_spec", lambda name: None)
        (wrong,) = problems(with_("[trace]"))
        assert (
            wrong == "edgeq.toml:6: trace: needs the extra \"otel\", which is not installed: pip install 'edgeq[otel]'"
        )

    @staticmethod
    def found(folder: Path, certificate: str, key: str) -> list[str]:
        text = with_('[[listener]]\naddress = "[::]:1"\n[[listener.tls.certificates]]')
        text += f'certificate = "{folder}/{certificate}"\n'
        return problems(text + (f'key = "{folder}/{key}"\n' if key else ""), "f")


_ROUTE = '[[route]]\nname = "a"\nupstream = "api"\n'
_POLICY = [
    ('[[route]]\nname = "a"\nupstream = "api"\nretry.body = "2MiB"', "route[0].retry.body: may be 1MiB at most"),
    (
        '[[route]]\nname = "a"\nupstream = "api"\nretry = { on = ["reset"], attempts = 1 }',
        "route[0].retry.attempts: the first try counts: must be 2 at least",
    ),
    (
        '[[route]]\nname = "a"\nupstream = "api"\nretry = { hedge = "50ms", attempts = 1 }',
        "route[0].retry.attempts: the first try counts: must be 2 at least",
    ),
    (
        '[[route]]\nname = "a"\nupstream = "api"\nretry.hedge = "p99"',
        'route[0].retry.hedge: expected "off", "p95" or a duration such as "150ms"',
    ),
    ('[[route]]\nname = "a"\nupstream = "api"\nretry.hedge = "0s"', "route[0].retry.hedge: must be 1ms at least"),
    ('[[route]]\nname = "a"\nupstream = "api"\nretry.hedge = 0.15', "route[0].retry.hedge: expected a string"),
    ('[[route]]\nname = "a"\nupstream = "api"\nretry.backoff = "x"', "route[0].retry.backoff: expected a duration"),
    (
        '[[route]]\nname = "a"\nupstream = "api"\nretry.backoff = "1s"',
        "route[0].retry.max_backoff: must be retry.backoff at least",
    ),
    ("[upstream.api.retry_budget]\nconcurrent = 2", "upstream.api.retry_budget.concurrent: a share is from 0 to 1"),
    (
        "[upstream.api.retry_budget]\nconcurrent_min = -1",
        "upstream.api.retry_budget.concurrent_min: must not be negative",
    ),
    ('[[route]]\nname = "a"\nupstream = "api"\nretry.on = ["404"]', "route[0].retry.on[0]: expected one of"),
    ('[[route]]\nname = "a"\nupstream = "api"\ncost = 0', "route[0].cost: must be more than 0"),
    (f"{_ROUTE}cache.max_bytes = 0", "route[0].cache.max_bytes: must be more than 0"),
    (f'{_ROUTE}cache.max_object = "32MiB"', "route[0].cache.max_object: may be 1/4 of max_bytes at most"),
    (f'{_ROUTE}cache.join = "-1s"', "route[0].cache.join: must not be negative"),
    (f'{_ROUTE}cache.set_cookie = "store"', "route[0].cache.set_cookie: expected one of"),
    (f"{_ROUTE}cache = true", "route[0].cache: expected a table, got true"),
    (f"{_ROUTE}cache.ttl = 5", "route[0].cache.ttl: unknown key"),
    (f"{_ROUTE}fallback = {{ }}", "route[0].fallback: says what to replace, but not by what"),
    (f'{_ROUTE}fallback = {{ upstream = "apj" }}', 'there is no upstream "apj" (did you mean api?)'),
    (f'{_ROUTE}fallback = {{ upstream = "api" }}', "route[0].fallback.upstream: the upstream of the route itself"),
    (f"{_ROUTE}fallback = {{ on = [], answer = {{ }} }}", "route[0].fallback.on: an empty list"),
    (
        f'{_ROUTE}fallback = {{ on = ["shed", "queue_ful"], answer = {{ }} }}',
        'route[0].fallback.on[1]: "queue_ful" is neither "shed", "failed", a reason that can be replaced',
    ),
    (f'{_ROUTE}fallback = {{ on = ["request_malformed"], answer = {{ }} }}', "route[0].fallback.on[0]:"),
    (f'{_ROUTE}fallback = {{ on = ["404"], answer = {{ }} }}', "route[0].fallback.on[0]:"),
    (f"{_ROUTE}fallback.answer.status = 204", "route[0].fallback.answer.status: must be from 200 to 599"),
    (f'{_ROUTE}fallback.answer.content_type = "a\\nb"', "route[0].fallback.answer.content_type: "),
    (f'{_ROUTE}fallback.answer.body = "{"x" * 65537}"', "route[0].fallback.answer.body: may be 64KiB at most"),
    ('[tenant]\nkey = "cookie"', 'tenant.key: expected "header:NAME", "key", "client-address" or "route"'),
    ('[tenant]\nkey = "header:x y"', "tenant.key: not the name of a header field (RFC 9110 5.1)"),
    ('[tenant]\nkey = "header:content-length"', "tenant.key: content-length has another purpose"),
    ('[tenant]\nkey = "route"\nweights = { a = 0 }', "tenant.weights.a: must be more than 0"),
    ("[tenant]\nlimit = 2", "tenant.limit: nothing says who a tenant is: tenant.key is missing"),
    ("[tenant]\nqueue_share = 0.5", "tenant.queue_share: nothing says who a tenant is: tenant.key is missing"),
    ('[tenant]\nkey = "route"\nqueue_share = 1.5', "tenant.queue_share: a share is from 0 to 1"),
    ('[tenant]\nkey = "route"\nlimit = -1', "tenant.limit: must not be negative"),
    ('[tenant]\nkey = "route"\nqueue = { size = 1 }', "tenant.queue.size: unknown key"),
    ('[tenant]\nkey = "route"\nqueue.timeout = "x"', "tenant.queue.timeout: "),
    ('[explain]\nslow = "x"', "explain.slow: expected a duration"),
    ('[explain]\nslow = "-1s"', "explain.slow: must not be negative"),
    ('[explain]\nfast = "1s"', "explain.fast: unknown key"),
    ('[forward]\ndeadline = "te"', "forward.deadline: te has another purpose"),
    ('[forward]\ndeadline = "Host"', "forward.deadline: host has another purpose"),
    ('[forward]\ndeadline = "accept"', "forward.deadline: accept has another purpose"),
    ('[forward]\npriority = "cookie"', "forward.priority: cookie has another purpose"),
    ('[forward]\ndeadline = "A"\npriority = "a"', "forward.priority: the same header as forward.deadline"),
    ('[[rate]]\nname = "r"\nby = "tenant"\nlimits = ["1/s"]', "rate[0].by: nothing says who a tenant is"),
    ('[[rate]]\nname = "r"\nby = "client"\nlimits = []', "rate[0].limits: a rate needs a limit at least"),
    ('[[rate]]\nname = "r"\nby = "client"\nlimits = ["1"]', "rate[0].limits[0]: expected"),
    ('[[rate]]\nname = "r"\nby = "client"\nlimits = ["1/s", "60/1s"]', "rate[0].limits[1]: the same window as"),
    ('[[rate]]\nname = "r"\nby = "client"\nlimits = ["1/s"]\nroutes = ["x"]', 'there is no route "x"'),
    (
        '[[route]]\nname = "a"\nupstream = "api"\ncost = 5\n[[rate]]\nname = "r"\nby = "client"\nlimits = ["4/s"]',
        "rate[0].limits[0]: admits nothing of a route whose cost is 5",
    ),
]


def test_a_cache_with_its_defaults() -> None:
    """`cache = {}` is enough."""
    config = load_text(with_(f"{_ROUTE}cache = {{}}\nfallback.answer.status = 200"), "f").config
    assert config.route[0].cache == RouteCache()
    assert config.route[0].fallback == RouteFallback(answer=PreparedAnswer(status=200))


_TRACE = [
    ('[trace]\nendpoint = "127.0.0.1:4318"', 'edgeq.toml:7: trace.endpoint: a collector is written "http://HOST:PORT"'),
    ('[trace]\nendpoint = "http://me:pw@a"', "edgeq.toml:7: trace.endpoint: no user and password here"),
    ('[trace]\nendpoint = "http://a:b"', 'edgeq.toml:7: trace.endpoint: "b" is no port'),
    ('[trace]\nendpoint = "http://a?b"', 'edgeq.toml:7: trace.endpoint: "a?b" is no host name'),
    ("[trace]\nratio = 1.5", "edgeq.toml:7: trace.ratio: is a share, from 0 to 1"),
    ('[trace]\nratio = "1%"', "edgeq.toml:7: trace.ratio: expected a number, got a string"),
    ("[trace]\nqueue = 1", "edgeq.toml:7: trace.queue: must be from 256 to 65536"),
    ('[trace]\nservice = ""', "edgeq.toml:7: trace.service: must not be empty"),
    ('[trace]\nheaders = { "a b" = "x" }', 'edgeq.toml:7: trace.headers."a b": not the name of a header field'),
    ('[trace]\nheaders = { Host = "x" }', "edgeq.toml:7: trace.headers.Host: is written by edgeq itself"),
    ('[trace]\nheaders = { a = "\u00e4" }', "edgeq.toml:7: trace.headers.a: this is no value of a header"),
    ('[trace]\nheaders = { a = "env:EDGEQ_NO" }', 'edgeq.toml:7: trace.headers.a: there is no variable "EDGEQ_NO"'),
    ("[trace]\nqeue = 5", "edgeq.toml:7: trace.qeue: unknown key (did you mean queue?)"),
    ('[forward]\ntrace = "pass"\n[trace]', 'edgeq.toml:7: forward.trace: with [trace] it must be "begin" (or "off")'),
]


@pytest.mark.parametrize(("text", "expected"), _TRACE, ids=[expected for _, expected in _TRACE])
def test_traces_that_make_no_sense(text: str, expected: str) -> None:
    """One mistake, one problem, with its line and key."""
    needs_otel()
    (found,) = problems(with_(text))
    assert found.startswith(expected)


@pytest.mark.parametrize(("text", "expected"), _POLICY, ids=[expected for _, expected in _POLICY])
def test_policies_that_make_no_sense(text: str, expected: str) -> None:
    """One mistake, one problem."""
    found = problems(with_(text))
    assert len(found) == 1
    assert expected in found[0]
