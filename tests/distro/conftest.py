"""Programs that start under the launcher, in their own processes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from otelweir.testing import Backend


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    out: str
    err: str
    took_s: float


class Launch:
    """Runs programs with nothing but environment variables: under `opentelemetry-instrument`, or `plain`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, program: str, /, **environ: str) -> Ended:
        return self._run([str(Path(sys.executable).with_name("opentelemetry-instrument"))], program, environ)

    def plain(self, program: str, /, **environ: str) -> Ended:
        return self._run([], program, environ)

    def _run(self, launcher: list[str], program: str, environ: dict[str, str]) -> Ended:
        file = self._folder / "program.py"
        file.write_text(textwrap.dedent(program))
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "WEIR_"))}
        began = time.monotonic()
        done = subprocess.run(
            [*launcher, sys.executable, str(file)],
            env=clean | environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=self._folder,
        )
        return Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - began)


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    return Launch(tmp_path)


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as backend:
        yield backend


@pytest.fixture(scope="session")
def quick_start() -> dict[str, str]:
    """Variables for programs of many processes: no libraries are instrumented, as that imports many of them."""
    names = {entry.name for entry in entry_points(group="opentelemetry_instrumentor")}
    return {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(sorted(names - {"logging"}))}
