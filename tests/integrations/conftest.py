"""Services in processes of their own, sending to a backend on a real socket."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from otelweir.testing import Backend

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Service:
    """A running service and the backend that it sends to."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, backend: Backend, output: Path) -> None:
        self.process = process
        self.port = port
        self.backend = backend
        self._output = output

    def get(self, path: str, **headers: str) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return Response(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.5):
                return
            time.sleep(0.05)
        raise AssertionError(f"the service did not start:\n{self.output}")

    def stop(self) -> None:
        # The group, because some servers fork workers.
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
                return


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(backend: Backend, **more: str) -> dict[str, str]:
    """The variables of a service that sends everything to the backend, soon."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "WEIR_"))}
    return {
        **clean,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{clean.get('PATH', '')}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_BLRP_SCHEDULE_DELAY": "200",
        "OTEL_PYTHON_DISTRO": "weir",
        "OTEL_PYTHON_CONFIGURATOR": "weir",
        "WEIR_LOG_SAMPLING": "off",
        "PYTHONUNBUFFERED": "1",
        **more,
    }


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as backend:
        yield backend


@pytest.fixture
def run(backend: Backend) -> Run:
    """Runs a program to its end: `run(["loguru_app.py"], variables)`; the backend has what it sent."""

    def start(
        arguments: Sequence[str], variables: Mapping[str, str] | None = None, *, launched: bool = False
    ) -> subprocess.CompletedProcess[str]:
        launcher = [str(Path(sys.executable).with_name("opentelemetry-instrument"))] if launched else []
        done = subprocess.run(
            [*launcher, sys.executable, *arguments],
            env=environment(backend, **(variables or {})),
            cwd=EXAMPLES,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done

    return start


Serve = Callable[..., Service]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts a service: `serve(["uvicorn", ..., "--port", "{port}"], variables)`."""
    with contextlib.ExitStack() as stack:

        def start(command: Sequence[str], variables: Mapping[str, str] | None = None) -> Service:
            backend = stack.enter_context(Backend())
            port = free_port()
            output = tmp_path_factory.mktemp("service") / "output.txt"
            process = subprocess.Popen(
                [part.format(port=port, python=sys.executable) for part in command],
                env=environment(backend, PORT=str(port), **(variables or {})),
                cwd=EXAMPLES,
                stdout=stack.enter_context(output.open("wb")),
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            service = Service(process, port, backend, output)
            stack.callback(service.stop)
            service.wait_until_up()
            return service

        yield start
