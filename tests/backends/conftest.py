"""Backends in environments of their own, as `install` makes them. Only when `WEIR_TEST_BACKENDS` names their folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from otelweir.testing import Backend as Receiver
from otelweir.testing import ReceivedRequest

HOME = os.environ.get("WEIR_TEST_BACKENDS", "")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LAUNCHED = ("openai_chat", "langchain_agent", "rag")
PLAIN = ("anthropic_chat",)
START_S = 200

collect_ignore_glob = [] if HOME else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starting the backends is within the first test's time."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(600))


class Backend:
    """A backend that runs, or is about to.

    Args:
        name: Of its environment.
        command: How to start it there; `{port}` stands for a free port, `{folder}` for an empty folder.
        environ: More variables for it, with the same words in them.
        alive: The path that answers when it is up.
        folder: An empty folder.
        headers: What it wants to be sent with traces.
    """

    def __init__(
        self,
        name: str,
        command: str,
        environ: dict[str, str],
        alive: str,
        folder: Path,
        headers: Mapping[str, str],
    ) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = str(listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{port}"
        self._alive = alive
        self._headers = headers
        words = {"port": port, "folder": str(folder)}
        programs = Path(HOME).expanduser().resolve() / name / "bin"
        program, *arguments = command.split()
        own = {key: value.format(**words) for key, value in environ.items()}
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            [str(programs / program), *(part.format(**words) for part in arguments)],
            env={**os.environ, **own, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
            cwd=folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def get(self, path: str, body: Any = None) -> Any:
        """What the API answers; a body makes it a POST."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def take(self, sent: ReceivedRequest) -> None:
        """Get what was sent, as it was sent."""
        kept = ("content-type", "content-encoding")
        headers = {name: value for name, value in sent.headers.items() if name in kept}
        request = urllib.request.Request(self.url + sent.path, sent.body, {**headers, **self._headers})
        urllib.request.urlopen(request, timeout=60).close()

    def wait(self) -> None:
        """Until it is up."""
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._process.poll() is None:
            try:
                urllib.request.urlopen(self.url + self._alive, timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
        raise RuntimeError(f"it did not start: {Path(self._log.name).read_text()[-2000:]}")

    def stop(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, 15)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, 9)
                self._process.wait(30)
        self._log.close()


def sent_by_examples(state: Path) -> list[ReceivedRequest]:
    """What the examples send of traces, each under its own name as service."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "WEIR_", "OPENAI_", "ANTHROPIC_"))}
    launcher = str(Path(sys.executable).with_name("opentelemetry-instrument"))
    with Receiver() as receiver:
        for example in (*LAUNCHED, *PLAIN):
            done = subprocess.run(
                [*([launcher] if example in LAUNCHED else []), sys.executable, str(EXAMPLES / f"{example}.py")],
                env={
                    **clean,
                    "XDG_STATE_HOME": str(state),
                    "OTEL_SERVICE_NAME": example,
                    "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
                    "OTEL_METRICS_EXPORTER": "none",
                    "OTEL_LOGS_EXPORTER": "none",
                    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "span_only",
                    "WEIR_GENAI_MLFLOW_COST": "true",
                },
                capture_output=True,
                text=True,
                timeout=200,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, "")
        return [request for request in receiver.requests if request.path == "/v1/traces"]


@dataclass
class Backends:
    """Both of them, with the traces of the examples."""

    phoenix: Backend
    mlflow: Backend


@pytest.fixture(scope="session")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    folder = tmp_path_factory.mktemp("backends")
    running: list[Backend] = []

    def start(name: str, command: str, environ: dict[str, str], alive: str, **headers: str) -> Backend:
        (folder / name).mkdir()
        wanted = {key.replace("_", "-"): value for key, value in headers.items()}
        running.append(Backend(name, command, environ, alive, folder / name, wanted))
        return running[-1]

    try:
        # All at once: each of them is busy with itself for a while.
        both = Backends(
            start(
                "phoenix",
                "phoenix serve",
                {
                    "PHOENIX_HOST": "127.0.0.1",
                    "PHOENIX_PORT": "{port}",
                    "PHOENIX_GRPC_PORT": "0",
                    "PHOENIX_WORKING_DIR": "{folder}",
                    "PHOENIX_TELEMETRY_ENABLED": "false",
                },
                "/healthz",
            ),
            start(
                "mlflow",
                "mlflow server --host 127.0.0.1 --port {port} --workers 1 "
                "--backend-store-uri sqlite:///{folder}/mlflow.db",
                {},
                "/health",
                x_mlflow_experiment_id="0",
            ),
        )
        with ThreadPoolExecutor() as pool:
            sending = pool.submit(sent_by_examples, folder / "state")
            for backend in running:
                backend.wait()
            for request in sending.result():
                for backend in running:
                    backend.take(request)
        yield both
    finally:
        for backend in running:
            backend.stop()


@pytest.fixture(scope="session")
def phoenix(backends: Backends) -> Backend:
    return backends.phoenix


@pytest.fixture(scope="session")
def mlflow(backends: Backends) -> Backend:
    return backends.mlflow
