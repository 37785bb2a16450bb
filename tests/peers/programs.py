"""Programs of others as peers: found or skipped with a message, started with a configuration of their own, bounded."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support import kernel

TIMEOUT_S = 60.0
"""For a program that should take a second, on a machine of any speed."""
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"


def need(program: str, package: str) -> str:
    """The program's path; without it the test is skipped."""
    found = shutil.which(program, path=_PATH)
    if found is None:
        pytest.skip(f"{program} is not installed (Debian and Ubuntu: {package})")
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class Ran:
    """A program that has ended."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return self.out.decode()


def run(command: Sequence[str], stdin: bytes = b"", check: bool = True) -> Ran:
    """Run to its end. `check`: it must end with 0."""
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=TIMEOUT_S, check=False)
    ran = Ran(done.returncode, done.stdout, done.stderr)
    assert not check or ran.code == 0, f"{command}: {ran.code}\n{ran.err.decode()[-3000:]}\n{ran.text[-1000:]}"
    return ran


def curl(*arguments: str, stdin: bytes = b"", check: bool = True) -> Ran:
    """Run curl, quiet but for errors; no file or variable of the user's has a say."""
    return run([need("curl", "curl"), "-q", "-sS", "-g", "--noproxy", "*", *arguments], stdin, check)


@contextlib.contextmanager
def serving(command: Sequence[str], log: Path, port: int) -> Iterator[int]:
    """A server that runs in the foreground, from the moment that it accepts on 127.0.0.1:port. Yields its pid."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        _wait_accepting(process, log, port)
        yield process.pid
    except BaseException as error:
        error.add_note(f"{command[0]}: {log.read_text(errors='replace')[-3000:]}")
        raise
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_accepting(process: subprocess.Popen[bytes], log: Path, port: int) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        assert process.poll() is None, f"did not start: {log.read_text(errors='replace')[-3000:]}"
        assert time.monotonic() < deadline_s, "does not accept"
        kernel.select_pause(0.01)


def nginx_config(directory: Path, port: int, root: Path) -> str:
    """Static files as a user would serve them: gzip, keep-alive, an error page of its own."""
    user = "user root;" if os.geteuid() == 0 else ""  # or its worker could not read a test's directory
    temporary = "\n".join(
        f"  {name}_temp_path {directory}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
daemon off; {user} worker_processes 1; pid {directory}/nginx.pid;
error_log {directory}/nginx-error.log;
events {{ worker_connections 1024; }}
http {{
{temporary}
  access_log off;
  types {{ text/plain txt; text/html html; application/json json; }}
  default_type application/octet-stream;
  sendfile on;
  keepalive_requests 100000;
  gzip on; gzip_min_length 100; gzip_types text/plain; gzip_proxied any; gzip_http_version 1.0;
  server {{
    listen 127.0.0.1:{port};
    root {root};
    absolute_redirect off;
    error_page 404 /static/missing.html;
    location = /static/teapot {{ return 418 "short and stout"; }}
    location = /static/moved {{ return 302 /static/small.txt; }}
    location = /static/nothing {{ return 204; }}
    location = /static/hang-up {{ return 444; }}
  }}
}}
"""


@contextlib.contextmanager
def nginx(directory: Path, port: int, root: Path) -> Iterator[int]:
    """nginx with the files below `root`. Yields its pid."""
    path = directory / "nginx.conf"
    path.write_text(nginx_config(directory, port, root))
    log = directory / "nginx.log"
    with serving([need("nginx", "nginx-light"), "-c", str(path), "-e", str(log)], log, port) as pid:
        yield pid


@contextlib.contextmanager
def haproxy(directory: Path, port: int, config: str) -> Iterator[int]:
    """HAProxy with this configuration, which listens on 127.0.0.1:port. Yields its pid."""
    path = directory / "haproxy.cfg"
    path.write_text(config)
    with serving([need("haproxy", "haproxy"), "-db", "-f", str(path)], directory / "haproxy.log", port) as pid:
        yield pid
