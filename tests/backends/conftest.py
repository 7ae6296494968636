"""Backends in environments of their own. Only when `WEIR_TEST_BACKENDS` names the folder for these."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HOME = os.environ.get("WEIR_TEST_BACKENDS", "")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LAUNCHED = ("openai_chat", "langchain_agent", "rag")
PLAIN = ("anthropic_chat",)

collect_ignore_glob = [] if HOME else ["test_*.py"]


class Backend:
    """A backend that runs.

    Args:
        package: What to install.
        command: How to start it, in its environment; `{port}` stands for a free port, `{folder}` for an empty folder.
        environ: More variables for it, with the same words in them.
        alive: The path that answers when it is up.
        folder: An empty folder.
    """

    def __init__(self, package: str, command: list[str], environ: dict[str, str], alive: str, folder: Path) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = str(listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{port}"
        words = {"port": port, "folder": str(folder)}
        programs = _environment(package)
        own = {name: value.format(**words) for name, value in environ.items()}
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            [str(programs / command[0]), *(part.format(**words) for part in command[1:])],
            env={**os.environ, **own, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
            cwd=folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._wait(alive)

    def get(self, path: str, body: Any = None) -> Any:
        """What the API answers; a body makes it a POST."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def stop(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, 15)
            self._process.wait(30)
        self._log.close()

    def _wait(self, alive: str) -> None:
        until = time.monotonic() + 100
        while time.monotonic() < until and self._process.poll() is None:
            try:
                urllib.request.urlopen(self.url + alive, timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
        self.stop()
        raise RuntimeError(f"it did not start: {Path(self._log.name).read_text()[-2000:]}")


def _environment(package: str) -> Path:
    """The folder of programs of an environment with a package, made if there is none."""
    home = Path(HOME).expanduser() / package
    programs = home / "bin"
    if not (home / "complete").exists():
        subprocess.run(["uv", "venv", "-q", "--clear", str(home)], check=True)
        subprocess.run(["uv", "pip", "install", "-q", "-p", str(programs / "python"), package], check=True)
        (home / "complete").touch()
    return programs


def send_examples(endpoint: str, state: Path, **environ: str) -> None:
    """Run the examples; their traces go to the endpoint, each under its own name as service."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "WEIR_", "OPENAI_", "ANTHROPIC_"))}
    launcher = str(Path(sys.executable).with_name("opentelemetry-instrument"))
    for example in (*LAUNCHED, *PLAIN):
        done = subprocess.run(
            [*([launcher] if example in LAUNCHED else []), sys.executable, str(EXAMPLES / f"{example}.py")],
            env={
                **clean,
                "XDG_STATE_HOME": str(state),
                "OTEL_SERVICE_NAME": example,
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_METRICS_EXPORTER": "none",
                "OTEL_LOGS_EXPORTER": "none",
                "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "span_only",
                **environ,
            },
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="session")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    folder = tmp_path_factory.mktemp("phoenix")
    environ = {
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": "{port}",
        "PHOENIX_GRPC_PORT": "0",
        "PHOENIX_WORKING_DIR": "{folder}",
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    backend = Backend("arize-phoenix", ["phoenix", "serve"], environ, "/healthz", folder)
    try:
        send_examples(backend.url, folder / "state")
        yield backend
    finally:
        backend.stop()


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    folder = tmp_path_factory.mktemp("mlflow")
    command = ["mlflow", "server", "--host", "127.0.0.1", "--port", "{port}", "--workers", "1"]
    command += ["--backend-store-uri", "sqlite:///{folder}/mlflow.db"]
    backend = Backend("mlflow", command, {}, "/health", folder)
    try:
        send_examples(
            backend.url,
            folder / "state",
            OTEL_EXPORTER_OTLP_HEADERS="x-mlflow-experiment-id=0",
            WEIR_GENAI_MLFLOW_COST="true",
        )
        yield backend
    finally:
        backend.stop()
