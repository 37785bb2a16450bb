"""Compiles the hot path with mypyc; everything else about the package is in setup.cfg.

The compiled modules are the same files, so edgeq behaves alike without them, only slower; `edgeq version` says which.

    EDGEQ_PURE=1               do not compile
    EDGEQ_REQUIRE_COMPILED=1   fail rather than fall back to interpreted modules

Each variant is built in a directory of its own, and from nothing: a pure build must never pick up a compiled module
that an earlier build has left behind, nor a module that has been renamed since.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from glob import glob
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

HOT = [
    "edgeq/wire/*.py",
    "edgeq/admission/*.py",
    "edgeq/board/gate.py",
    "edgeq/board/gcra_table.py",
    "edgeq/board/handover.py",
    "edgeq/board/histogram.py",
    "edgeq/board/keyed.py",
    "edgeq/board/lanes.py",
    "edgeq/board/layout.py",
    "edgeq/board/reading.py",
    "edgeq/board/resources.py",
    "edgeq/board/spent.py",
    "edgeq/cache/*.py",
    "edgeq/listener/accept_io.py",
    "edgeq/listener/accept_policy.py",
    "edgeq/listener/backlog.py",
    "edgeq/listener/connection.py",
    "edgeq/listener/descriptor_io.py",
    "edgeq/listener/early_io.py",
    "edgeq/listener/nobody.py",
    "edgeq/listener/open_io.py",
    "edgeq/listener/peer.py",
    "edgeq/listener/reception_io.py",
    "edgeq/listener/refuse_io.py",
    "edgeq/listener/settings.py",
    "edgeq/listener/splice_io.py",
    "edgeq/listener/tcp_info_io.py",
    "edgeq/llm/accounts.py",
    "edgeq/llm/affinity.py",
    "edgeq/llm/answering.py",
    "edgeq/llm/asking.py",
    "edgeq/llm/cache_key.py",
    "edgeq/llm/degrade.py",
    "edgeq/llm/dialects/*.py",
    "edgeq/llm/estimate.py",
    "edgeq/llm/exchange.py",
    "edgeq/llm/flight.py",
    "edgeq/llm/gate.py",
    "edgeq/llm/hearing.py",
    "edgeq/llm/hedge.py",
    "edgeq/llm/incoming.py",
    "edgeq/llm/ledger.py",
    "edgeq/llm/limit_headers.py",
    "edgeq/llm/log_fields.py",
    "edgeq/llm/measures.py",
    "edgeq/llm/message.py",
    "edgeq/llm/meter.py",
    "edgeq/llm/operation.py",
    "edgeq/llm/passing.py",
    "edgeq/llm/pauses.py",
    "edgeq/llm/plan.py",
    "edgeq/llm/price.py",
    "edgeq/llm/promise.py",
    "edgeq/llm/prompt_cache.py",
    "edgeq/llm/provider.py",
    "edgeq/llm/provider_limits.py",
    "edgeq/llm/pulse.py",
    "edgeq/llm/requested.py",
    "edgeq/llm/route.py",
    "edgeq/llm/saying.py",
    "edgeq/llm/sharing.py",
    "edgeq/llm/speech.py",
    "edgeq/llm/sse.py",
    "edgeq/llm/tenants.py",
    "edgeq/llm/till.py",
    "edgeq/llm/transcript.py",
    "edgeq/llm/unfinished.py",
    "edgeq/llm/usage.py",
    "edgeq/observe/refusals.py",
    "edgeq/route/*.py",
    "edgeq/policy/*.py",
    "edgeq/upstream/attempt.py",
    "edgeq/upstream/balancer.py",
    "edgeq/upstream/breaker.py",
    "edgeq/upstream/connection.py",
    "edgeq/upstream/member.py",
    "edgeq/upstream/outlier.py",
    "edgeq/upstream/pool.py",
    "edgeq/upstream/upstream.py",
    "edgeq/response/access_log.py",
    "edgeq/response/at_once.py",
    "edgeq/response/grace.py",
    "edgeq/response/relay.py",
    "edgeq/response/hedge.py",
    "edgeq/response/rescue.py",
    "edgeq/response/sending.py",
    "edgeq/response/tries.py",
    "edgeq/trace/encode.py",
    "edgeq/trace/spans.py",
    "edgeq/worker/shard.py",
    "edgeq/worker/wheel.py",
]
"""Where a request and a new connection spend their time, as patterns; packages' __init__ are never compiled."""

PURE = os.environ.get("EDGEQ_PURE", "0") not in ("", "0")
REQUIRED = os.environ.get("EDGEQ_REQUIRE_COMPILED", "0") not in ("", "0")
BUILD_BASE = Path("build") / ("pure" if PURE else "compiled")

NOTE = BUILD_BASE / "interpreted.txt"
"""Why the last build did not compile."""


def hot_modules() -> list[str]:
    """The files to compile."""
    files = sorted({file for pattern in HOT for file in glob(pattern)})
    # shapes: msgspec makes these classes, and reads their annotations while edgeq runs.
    return [file for file in files if not file.endswith(("__init__.py", "shapes.py"))]


def missing_tool() -> str:
    """What is lacking for compiling C extensions; empty if nothing is."""
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    if shutil.which(compiler.split()[0]) is None:
        return f"there is no C compiler ({compiler.split()[0]})"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python.h is missing (Debian and Ubuntu: python3-dev)"
    return ""


def fall_back(why: object) -> None:
    """Say that the interpreted modules will do, or fail if they must not."""
    if REQUIRED:
        raise SystemExit(f"edgeq: EDGEQ_REQUIRE_COMPILED is set, but {why}")
    message = f"edgeq: the hot path stays interpreted: {why}"
    print(message, file=sys.stderr, flush=True)
    # pip shows what a build says only with -v, so the Makefile looks here.
    BUILD_BASE.mkdir(parents=True, exist_ok=True)
    NOTE.write_text(message + "\n")


def extensions() -> list[Any]:
    """The compiled modules, as one group: calls between them are then plain C calls."""
    only_metadata = {"egg_info", "dist_info", "sdist"} & set(sys.argv)
    if PURE or only_metadata:
        return []
    NOTE.unlink(missing_ok=True)
    missing = missing_tool()
    if missing:
        fall_back(missing)
        return []
    try:
        from mypyc.build import mypycify

        # The project's own mypy configuration is for its developers: what it is strict about must not stop a build.
        options = ["--config-file=", "--ignore-missing-imports", f"--cache-dir={BUILD_BASE / 'mypy'}"]
        compiled = mypycify(
            [*options, *hot_modules()],
            opt_level="3",
            debug_level="0",
            group_name="edgeq",
            target_dir=str(BUILD_BASE / "c"),
        )
    except (Exception, SystemExit) as error:  # mypycify ends with SystemExit if a module does not pass
        fall_back(f"mypyc gave up: {error}")
        return []
    for extension in compiled:
        # What a compiler thinks of generated code is nobody's business here, and telling it takes minutes.
        extension.extra_compile_args = [arg for arg in extension.extra_compile_args if arg != "-Werror"] + ["-w"]
    return list(compiled)


class Build(build):
    """Builds from nothing in the variant's own directory."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.build_base = str(BUILD_BASE)

    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class BuildExt(build_ext):
    """All compiled modules or none: they refer to each other."""

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:  # whatever goes wrong in a compiler or linker
            fall_back(f"the C compiler failed: {error}")
            for output in self.get_outputs():
                Path(output).unlink(missing_ok=True)
            self.extensions = []


setup(ext_modules=extensions(), cmdclass={"build": Build, "build_ext": BuildExt})
