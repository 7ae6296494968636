"""Real servers with several processes: what their workers logged arrives once, and nothing is left on disk.

Workers are replaced, reloaded, killed; the servers run under the launcher with nothing but environment variables.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from celery import Celery  # type: ignore[import-untyped]

from otelweir.testing import Backend

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

APPLICATION = """
    import logging, os, signal, time
    from opentelemetry import trace

    def order(path):
        number, _, then = path.strip("/").partition("/")
        with trace.get_tracer("shop").start_as_current_span(f"order {number}"):
            logging.getLogger("shop").warning("order %s", number)
        if then:
            # Nothing is under way when it ends: of that, nobody could tell whether it arrived.
            time.sleep(0.3)
        if then == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if then == "hang deaf":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGABRT])
        if then.startswith("hang"):
            time.sleep(60)
        return str(os.getpid()).encode()

    def wsgi(environ, start_response):
        body = order(environ["PATH_INFO"])
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    async def asgi(scope, receive, send):
        if scope["type"] == "http":
            body = order(scope["path"])
            headers = [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
"""

GUNICORN = """
    control_socket_disable = True

    def pre_fork(server, worker):
        with open("begun", "a") as file: file.write("begun ")

    def post_worker_init(worker):
        with open("up", "a") as file: file.write("up ")
"""


class Server:
    """A server under the launcher, on a socket that it was handed: whoever asks before it listens waits.

    Attributes:
        spool: The folder of the service.
        process: Of the launcher, and then of the server.
    """

    def __init__(self, folder: Path, backend: Backend, environ: dict[str, str]) -> None:
        self.spool = folder / "spool"
        self.errors = folder / "errors"
        self._folder = folder
        self._backend = backend
        self._environ = environ
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.fd = self._socket.fileno()
        self.process: subprocess.Popen[bytes] | None = None
        self._asked = 0
        (folder / "shop.py").write_text(textwrap.dedent(APPLICATION))
        (folder / "gunicorn.conf.py").write_text(textwrap.dedent(GUNICORN))

    def start(self, program: str, *arguments: str, **environ: str) -> None:
        tools = Path(sys.executable).parent
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "WEIR_"))}
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [tools / "opentelemetry-instrument", tools / program, *arguments],
                cwd=self._folder,
                pass_fds=[self.fd],
                stdout=errors,
                stderr=errors,
                start_new_session=True,
                env=clean
                | self._environ
                | {
                    "OTEL_SERVICE_NAME": "shop",
                    "OTEL_EXPORTER_OTLP_ENDPOINT": self._backend.endpoint,
                    "OTEL_METRICS_EXPORTER": "none",
                    "OTEL_BLRP_SCHEDULE_DELAY": "100",
                    "WEIR_LOG_SAMPLING": "off",
                    "WEIR_SHUTDOWN_TIMEOUT": "20",
                    "WEIR_SPOOL_DIR": str(self.spool),
                }
                | environ,
            )

    def order(self, then: str = "") -> str:
        """Have a worker handle one more order; its process id, empty when it did not answer."""
        number, self._asked = self._asked, self._asked + 1
        connection = http.client.HTTPConnection("127.0.0.1", self._socket.getsockname()[1], timeout=30)
        try:
            connection.request("GET", f"/{number}" + (f"/{then}".replace(" ", "%20") if then else ""))
            answer = connection.getresponse()
            return answer.read().decode() if answer.status == 200 else ""
        except (http.client.HTTPException, ConnectionError):
            return ""
        finally:
            connection.close()

    def orders(self, count: int) -> set[str]:
        """The process ids of the workers that handled so many orders, two at a time."""
        with ThreadPoolExecutor(2) as clients:
            return set(clients.map(lambda _: self.order(), range(count)))

    def tell(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def settle(self) -> None:
        """Wait until no worker of gunicorn begins: at that time it is deaf to signals."""
        begun, up = self._folder / "begun", self._folder / "up"
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            if len(begun.read_text().split()) != len(up.read_text().split() if up.exists() else ""):
                until = time.monotonic() + 0.3
            time.sleep(0.05)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; gives the exit status."""
        assert self.process is not None
        if (self._folder / "begun").exists():
            self.settle()
        self.process.send_signal(number)
        return self.process.wait(40)

    def close(self) -> None:
        self._socket.close()
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()

    def all_arrived(self, orders: int | None = None) -> None:
        """Every order has arrived, its span and its record, once each, and no process has left anything behind."""
        once = Counter(f"order {n}" for n in range(self._asked if orders is None else orders))
        assert Counter(log.body for log in self._backend.logs if log.scope == "shop") == once
        assert Counter(span.name for span in self._backend.spans if span.scope == "shop") == once
        assert [path.name for path in self.spool.iterdir() if path.is_dir()] == [], self.errors.read_text()
        assert "WEIR-" not in self.errors.read_text()


@pytest.fixture
def server(tmp_path: Path, backend: Backend, quick_start: dict[str, str]) -> Iterator[Server]:
    server = Server(tmp_path, backend, quick_start)
    yield server
    server.close()


def _gunicorn(server: Server, *options: str, **environ: str) -> None:
    server.start("gunicorn", "shop:wsgi", "-b", f"fd://{server.fd}", "--graceful-timeout", "20", *options, **environ)


class TestGunicorn:
    @pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["", "preload"])
    @pytest.mark.parametrize("kind", ["sync", "gthread"])
    def test_that_is_reloaded_and_ends(self, server: Server, kind: str, preload: list[str]) -> None:
        _gunicorn(server, "-w", "2", "-k", kind, "--threads", "2" if kind == "gthread" else "1", *preload)
        before = server.orders(20)
        server.settle()
        server.tell(signal.SIGHUP)
        while server.order() in before:
            time.sleep(0.05)
        server.orders(20)
        assert server.end() == 0
        server.all_arrived()

    @pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["", "preload"])
    def test_whose_workers_serve_a_few_requests_only(self, server: Server, preload: list[str]) -> None:
        _gunicorn(server, "-w", "2", "--max-requests", "3", *preload)
        assert len(server.orders(20)) > 5
        assert server.end() == 0
        server.all_arrived()

    @pytest.mark.parametrize("how", ["hang", "hang deaf", "die"])
    def test_whose_workers_are_killed(self, server: Server, how: str) -> None:
        """Those that hang by the server, with SIGABRT, or SIGKILL where that does not help."""
        _gunicorn(server, "-w", "1", "--timeout", "2", "--preload", OTEL_BLRP_SCHEDULE_DELAY="60000")
        first = server.order()
        assert server.order(how) == ""
        assert server.order() != first
        assert server.end() == 0
        server.all_arrived()

    def test_that_is_killed_itself(self, server: Server, backend: Backend) -> None:
        """Its workers notice and end, too."""
        _gunicorn(server, "-w", "2", "--timeout", "2", OTEL_BLRP_SCHEDULE_DELAY="60000")
        server.orders(10)
        server.end(signal.SIGKILL)
        backend.wait_for(lambda: len(backend.spans) == 10)
        _gunicorn(server, "-w", "2")
        server.orders(10)
        server.end()
        server.all_arrived()


class TestUvicorn:
    @pytest.fixture(autouse=True)
    def _started(self, server: Server) -> None:
        # The default of five seconds for it is short where several processes start at once.
        options = ["--workers", "2", "--timeout-worker-healthcheck", "60", "--lifespan", "off"]
        server.start("uvicorn", "shop:asgi", "--fd", str(server.fd), *options)

    def test_that_ends(self, server: Server) -> None:
        server.orders(20)
        assert server.end() == 0
        server.all_arrived()

    def test_of_whose_workers_one_is_killed(self, server: Server) -> None:
        """Another one takes its place, and sends what it left."""
        server.orders(10)
        assert server.order("die") == ""
        server.orders(10)
        assert server.end() == 0
        server.all_arrived()


class TestCelery:
    TASKS = """
        import shop
        from celery import Celery
        app = Celery("tasks", broker="filesystem://")
        app.conf.broker_transport_options = {options!r}
        app.conf.worker_prefetch_multiplier = 1

        @app.task(name="order")
        def order(number):
            shop.order(str(number))
    """

    def test_that_replaces_its_workers_and_ends(self, server: Server, backend: Backend, tmp_path: Path) -> None:
        """A warm shutdown: what was begun is done."""
        queue, control = tmp_path / "queue", tmp_path / "control"
        queue.mkdir()
        folders = {"data_folder_in": queue, "data_folder_out": queue, "control_folder": control}
        options = {name: str(folder) for name, folder in folders.items()} | {"polling_interval": 0.1}
        (tmp_path / "tasks.py").write_text(textwrap.dedent(self.TASKS.format(options=options)))
        client = Celery(broker="filesystem://")
        client.conf.broker_transport_options = options
        for number in range(20):
            client.send_task("order", [number])
        server.start("celery", "-A", "tasks", "worker", "-c", "2", "--max-tasks-per-child=3", "--without-mingle")
        backend.wait_for(lambda: sum(span.scope == "shop" for span in backend.spans) >= 20, 40)
        assert server.end() == 0
        server.all_arrived(20)
