"""The shop in a process of its own, launched as anybody launches a service: `opentelemetry-instrument`, variables."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final

from otelweir.demo.comparison import LogFile
from otelweir.errors import DEMO_FAILED, ServerError

NAME: Final = "shop"
LAUNCHER: Final = "opentelemetry-instrument"
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0

_POLL_S: Final = 0.05
_OUTPUT_LINES: Final = 30
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_LISTENING: Final = re.compile(r"^listening on port (\d+)$", re.MULTILINE)


class Interrupted(Exception):
    """Somebody wants the demo to end."""


class DemoError(ServerError):
    """The service does not run.

    Attributes:
        output: The last lines of what it printed.
    """

    def __init__(self, detail: str, output: str) -> None:
        self.output = output
        super().__init__(DEMO_FAILED, detail)

    def __str__(self) -> str:
        indented = "\n".join(f"  {line}" for line in self.output.splitlines())
        return f"{super().__str__()}\n\n{indented or '  (no output)'}"


def environment(endpoint: str, inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables that make the shop a service under Weir.

    What the caller's shell says about telemetry stays out: it is meant for the caller's services, and may send
    elsewhere.
    """
    kept = {name: value for name, value in inherited.items() if not name.startswith(("OTEL_", "WEIR_"))}
    return kept | {
        "OTEL_SERVICE_NAME": NAME,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        # Named, in case another distribution is installed too.
        "OTEL_PYTHON_DISTRO": "weir",
        "OTEL_PYTHON_CONFIGURATOR": "weir",
        "OTEL_PYTHON_FASTAPI_EXCLUDED_URLS": "health",
        # So that one sees it arrive.
        "OTEL_BLRP_SCHEDULE_DELAY": "500",
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        # A slow machine may take its time.
        "WEIR_SHUTDOWN_TIMEOUT": "20",
        # All of it stays on this machine, whatever proxy there is.
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
    }


def launcher() -> list[str]:
    """The launcher of this very environment, which need not be on PATH."""
    for folder in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        for name in (LAUNCHER, f"{LAUNCHER}.exe"):
            if (folder / name).is_file():
                return [str(folder / name)]
    # What the script contains.
    return [sys.executable, "-c", "from opentelemetry.instrumentation.auto_instrumentation import run; run()"]


class Service:
    """The shop; as a context manager it leaves no process behind, whatever happens.

    Args:
        folder: Where its output and its log file go.
        endpoint: Where its telemetry goes.
        program: What to run, after `python`.
        variables: Further variables of its environment.

    Attributes:
        log: Its log file.
        port: Where it listens.
    """

    def __init__(
        self,
        folder: Path,
        endpoint: str,
        program: Sequence[str] = ("-m", "otelweir.demo.service"),
        variables: Mapping[str, str] = _NOTHING,
    ) -> None:
        self.log = LogFile(folder / "service.log")
        self.port = 0
        self._output = folder / "output.txt"
        self._folder = folder
        self._environment = environment(endpoint, os.environ) | dict(variables)
        self._command = [*launcher(), sys.executable, *program, "--log-file", str(self.log.path), "--until-eof"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, told: threading.Event) -> None:
        """Launch it, and wait until it listens.

        Raises:
            DemoError: It ended, or does not listen in time.
            Interrupted: `told` was set.
        """
        self._launch()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (found := _LISTENING.search(self._read())):
            self.check()
            if time.monotonic() > deadline:
                raise DemoError(f"the service does not listen after {START_TIMEOUT_S:.0f} s", self.output())
            if told.wait(_POLL_S):
                raise Interrupted
        self.port = int(found[1])

    def finish(self, told: threading.Event) -> bool:
        """Launch one that ends by itself, and wait for that; whether it ended well, and in time.

        Raises:
            Interrupted: `told` was set.
        """
        self._launch()
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            if told.wait(_POLL_S):
                raise Interrupted
        return self._process.poll() == 0

    def _launch(self) -> None:
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                # A neutral place: the launcher puts the current folder on the path of modules.
                cwd=self._folder,
                # Ends when this process does, however it ends: a service that nobody can stop must stop by itself.
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for us, who then end it.
                start_new_session=True,
            )

    def check(self) -> None:
        """Raises DemoError if it has ended by itself."""
        if self._process is None or (code := self._process.poll()) is None:
            return
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        raise DemoError(f"the service ended {how}", self.output())

    def stop(self, told: threading.Event) -> bool:
        """Ask it to end, as whoever runs services does; whether it ended well, and in time.

        Raises:
            Interrupted: `told` was set.
        """
        if self._process is None:
            return False
        self._process.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            if told.wait(_POLL_S):
                raise Interrupted
        # A server that has shut down well may raise the signal again, to say how it ended.
        return self._process.poll() in (0, -signal.SIGTERM)

    def output(self) -> str:
        """The last lines that it printed."""
        return "\n".join(self._read().splitlines()[-_OUTPUT_LINES:])

    def _read(self) -> str:
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()

    def __repr__(self) -> str:
        process = self._process
        state = "not started" if process is None else "running" if process.poll() is None else "ended"
        return f"<Service {NAME} {state}, port {self.port}>"
