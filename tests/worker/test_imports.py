"""What a worker has imported it pays for in each process: nothing that it does not need."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_UNWANTED = ("rich", "textual", "shtab", "pydantic", "cryptography", "requests", "opentelemetry")
_LIST = "import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"


@pytest.mark.parametrize("module", ["edgeq.worker.app", "edgeq.supervisor.run_io", "edgeq.admin.server_io"])
def test_no_package_that_only_happens_to_be_installed(module: str, tmp_path: Path) -> None:
    """Libraries import rich and others when they find them; a worker must not, whatever is imported first."""
    for name in _UNWANTED:
        (tmp_path / name).mkdir()
        for submodule in ("__init__", "console", "traceback"):
            (tmp_path / name / f"{submodule}.py").write_text("")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    code = _LIST.format(module=module)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    imported = set(done.stdout.decode().split())
    assert "structlog" in imported
    assert imported.isdisjoint(_UNWANTED)
    assert "sqlite3" not in imported, "only a supervisor with accounts needs it"
