"""The real collector with the configurations of `collector-config/`, a service that sends to it, and who counts."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO, TypeVar

import pytest

from otelweir.selfmetrics.status import LaneStatus, read_status
from otelweir.signals import Lane
from otelweir.testing import Backend

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "collector-config"
OTELCOL = Path(os.environ.get("OTELCOL", CONFIG / "bin" / "otelcol"))
WAIT_S = 60.0

_HELD: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, and that no other call has given."""
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        if port not in _HELD:
            _HELD.add(port)
            return port


def until(predicate: Callable[[], T], what: str, timeout_s: float = WAIT_S) -> T:
    """Wait until the predicate gives something true, and return that."""
    deadline = time.monotonic() + timeout_s
    while not (found := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.05)
    return found


class Collector:
    """One collector with one of the configurations; its ports and its folder are its own.

    Args:
        config: The file in `collector-config/`; or several, with spaces between them, where one adds to another.
        prefix: What the file's variables begin with: `SIDECAR`.
        folder: Where its queue lives, and what it says.
        resource: `OTEL_RESOURCE_ATTRIBUTES` of its container.
        environ: The file's variables, without the prefix.
    """

    def __init__(self, config: str, prefix: str, folder: Path, *, resource: str = "", **environ: str) -> None:
        self._resource = resource
        self._config, self._prefix, self._folder = config, prefix, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.grpc, self.http, self.health, self.metrics = (free_port() for _ in range(4))
        self.environ = {
            "GRPC_ENDPOINT": f"127.0.0.1:{self.grpc}",
            "HTTP_ENDPOINT": f"127.0.0.1:{self.http}",
            "HEALTH_ENDPOINT": f"127.0.0.1:{self.health}",
            "METRICS_PORT": str(self.metrics),
            "STORAGE_DIR": str(folder / "queue"),
            "FLUSH_TIMEOUT": "50ms",
            "RETRY_MAX_INTERVAL": "1s",
            **environ,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoints(self) -> dict[str, str]:
        """By protocol, as `OTEL_EXPORTER_OTLP_PROTOCOL` calls it."""
        return {"grpc": f"http://127.0.0.1:{self.grpc}", "http/protobuf": f"http://127.0.0.1:{self.http}"}

    @property
    def log(self) -> str:
        """What it has said, over all its lives."""
        return (self._folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "WEIR_", "SIDECAR_", "GATEWAY_"))}
        variables = {f"{self._prefix}_{name}": value for name, value in self.environ.items()}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(OTELCOL),
                    *(f"--config={CONFIG / name}" for name in self._config.split()),
                    "--feature-gates=processor.tailsamplingprocessor.usetracestate",
                ],
                env=clean | variables | {"OTEL_RESOURCE_ATTRIBUTES": self._resource},
                stdout=log,
                stderr=log,
            )
        until(self._is_ready, f"{self._config} is ready: {self.log[-3000:]}")

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self._config} ended: {self.log[-3000:]}"
        return self._get(self.health, "/")[0] == 200

    @staticmethod
    def _get(port: int, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def figure(self, name: str, **labels: str) -> float:
        """One of its own metrics, summed over all that have these labels."""
        total = 0.0
        for line in self._get(self.metrics, "/metrics")[1].splitlines():
            if (found := re.fullmatch(rf"otelcol_{name}(?:_total)?(?:\{{(.*)\}})? ([^ ]+)", line)) and all(
                f'{label}="{value}"' in (found[1] or "") for label, value in labels.items()
            ):
                total += float(found[2])
        return total

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as a restart would."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise
            finally:
                self._process = None


class Service:
    """A program under `opentelemetry-instrument` that does what it is told, a line at a time.

    `orders A B` makes the orders from A up to B: of each a span, a log record within it, and one more in a counter.
    `large N` logs one record of N times 200 kB.
    """

    PROGRAM = """
        import logging, sys
        from opentelemetry import metrics, trace
        logger, tracer = logging.getLogger("shop"), trace.get_tracer("shop")
        logger.setLevel(logging.INFO)
        orders = metrics.get_meter("shop").create_counter("orders")

        def do(command, *arguments):
            match command:
                case "orders":
                    for n in range(*map(int, arguments)):
                        with tracer.start_as_current_span(f"order {n}"):
                            logger.info("order %d", n)
                        orders.add(1)
                case "large":
                    # One text of any length would be cut by Weir itself.
                    logger.info("large", extra={f"part{n}": "x" * 200_000 for n in range(int(arguments[0]))})
                case "fails":
                    with tracer.start_as_current_span("fails"):
                        raise RuntimeError("as told")
                case "run":
                    exec(bytes.fromhex(arguments[0]).decode(), globals())

        for line in sys.stdin:
            try:
                do(*line.split())
            except RuntimeError:
                pass
            print("done", flush=True)
    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "service.py"
        file.write_text(textwrap.dedent(self.PROGRAM))
        self._spool = folder / "spool"
        self._err: IO[bytes] = (folder / "err").open("wb")
        self._file = folder / "err"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "WEIR_"))}
        instrumentors = {entry.name for entry in entry_points(group="opentelemetry_instrumentor")}
        self._process = subprocess.Popen(
            [str(Path(sys.executable).with_name("opentelemetry-instrument")), sys.executable, str(file)],
            env=clean
            | {
                "OTEL_SERVICE_NAME": "shop",
                "OTEL_METRIC_EXPORT_INTERVAL": "500",
                "OTEL_BSP_SCHEDULE_DELAY": "100",
                "OTEL_BLRP_SCHEDULE_DELAY": "100",
                "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(sorted(instrumentors - {"logging"})),
                "WEIR_SPOOL_DIR": str(self._spool),
                "WEIR_LOG_SAMPLING": "off",
            }
            | dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._err,
            text=True,
        )

    def do(self, command: str) -> None:
        """Do it, and return when it is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n", self.err

    def run(self, code: str) -> None:
        """Run these lines in the service."""
        self.do(f"run {textwrap.dedent(code).encode().hex()}")

    @property
    def err(self) -> str:
        """What it has said."""
        return self._file.read_text()

    def tally(self, lane: Lane) -> LaneStatus:
        """What it said last of its delivery, which may be seconds ago."""
        return self._told(lane, 0.0) or LaneStatus()

    def _told(self, lane: Lane, since: float) -> LaneStatus | None:
        for folder in self._spool.glob(f"{self._process.pid}-*"):
            if (status := read_status(folder)) is not None and status.time >= since and lane in status.lanes:
                return status.lanes[lane]
        return None

    def tells(self, lane: Lane, predicate: Callable[[LaneStatus], object], what: str) -> LaneStatus:
        """Wait until what it says of its delivery from now on is as it should be, and return that."""
        now = time.time()
        told: list[LaneStatus] = []

        def does() -> bool:
            told[:] = [tally] if (tally := self._told(lane, now)) is not None else []
            return bool(told and predicate(told[0]))

        until(does, what)
        return told[0]

    def delivers(self, lane: Lane, records: int) -> LaneStatus:
        """Wait until at least so many records, and all that it has, have come to an end, and return what it says."""
        return self.tells(
            lane,
            lambda tally: tally.delivered + sum(tally.lost.values()) >= records and not tally.waiting,
            f"{records} {lane} at an end",
        )

    def end(self) -> None:
        """Have it end by itself, and wait for that."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(WAIT_S)

    def kill(self) -> None:
        """End it at once; its spool stays."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._err):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


@pytest.fixture(scope="session", autouse=True)
def _otelcol() -> None:
    if not os.access(OTELCOL, os.X_OK):
        remedy = f"{OTELCOL} is not there: `make collector` builds it"
        if os.environ.get("CI"):
            pytest.fail(remedy)
        pytest.skip(remedy)


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Callable[..., Collector]]:
    """Starts collectors, and ends them after the test."""
    started: list[Collector] = []

    def start(config: str, prefix: str, **environ: str) -> Collector:
        one = Collector(config, prefix, tmp_path / f"{prefix.lower()}-{len(started)}", **environ)
        started.append(one)
        one.start()
        return one

    yield start
    for one in reversed(started):
        one.kill()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts services, and ends them after the test."""
    started: list[Service] = []

    def start(endpoint: str, protocol: str = "http/protobuf", **environ: str) -> Service:
        one = Service(
            tmp_path / f"service-{len(started)}",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol} | environ,
        )
        started.append(one)
        return one

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as backend:
        yield backend
