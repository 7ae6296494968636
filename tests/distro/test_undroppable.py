"""What was accepted arrives, however the process ends and whatever the endpoint does meanwhile."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otelweir.testing import Answer, Backend

if TYPE_CHECKING:
    from tests.distro.conftest import Launch

SERVICE = """
    import logging, os, signal, sys, time
    from opentelemetry import metrics, trace
    only_weir = logging.StreamHandler()
    only_weir.addFilter(logging.Filter("otelweir"))
    logging.getLogger().addHandler(only_weir)
    for n in range({start}, {start} + 200):
        if n == {start} + 100 and "FLUSH_HALF" in os.environ:
            assert trace.get_tracer_provider().force_flush()
        with trace.get_tracer("shop").start_as_current_span(f"order {{n}}"):
            logging.getLogger("shop").warning("order %d", n)
"""

ENDS = {
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", -9),
    "os._exit": ("os._exit(3)", 3),
    "abort": ("import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()", -6),
    "a crash": ("import ctypes, resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); ctypes.string_at(1)", -11),
    "another program": ("os.execv(sys.executable, [sys.executable, '-c', ''])", 0),
    "the usual end": ("", 0),
}


def _service(end: str, start: int = 0) -> str:
    return textwrap.dedent(SERVICE.format(start=start)) + end + "\n"


def _environ(spool: Path, endpoint: str, **more: str) -> dict[str, str]:
    return {
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_METRICS_EXPORTER": "none",
        "WEIR_LOG_SAMPLING": "off",
        "WEIR_SPOOL_DIR": str(spool),
        **more,
    }


def _all(backend: Backend, orders: int = 200) -> None:
    """Every order has arrived, its span and its record, once each."""
    once = Counter(f"order {n}" for n in range(orders))
    assert Counter(log.body for log in backend.logs if log.scope == "shop") == once
    assert Counter(span.name for span in backend.spans) == once


def _unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class TestTheEndOfAProcess:
    @pytest.mark.parametrize("end", ENDS)
    def test_loses_nothing(self, launch: Launch, backend: Backend, tmp_path: Path, end: str) -> None:
        """Neither what it had no time to send, nor what it sent a moment before."""
        # Nothing is under way when it ends: of that, nobody could tell whether it arrived.
        environ = _environ(tmp_path / "spool", backend.endpoint, OTEL_BLRP_SCHEDULE_DELAY="60000", FLUSH_HALF="yes")
        code, status = ENDS[end]
        first = launch(_service(code), **environ)
        assert (first.code, first.err) == (status, "")
        again = launch("", **environ)
        assert (again.code, again.out, again.err) == (0, "", "")
        _all(backend)
        assert not any(path.is_dir() for path in (tmp_path / "spool").iterdir())

    def test_in_an_outage_says_what_waits_and_where(self, launch: Launch, tmp_path: Path) -> None:
        port, spool = _unused_port(), tmp_path / "spool"
        environ = _environ(spool, f"http://127.0.0.1:{port}")
        for start in (0, 200):
            ended = launch(_service("", start), **environ)
            assert ended.code == 0
            assert ended.took_s < 15
            waiting = start + 200
            assert f"WEIR-DELIVER-006: {waiting} traces, {waiting} logs in {spool}." in ended.err.splitlines()[-1]
        with Backend(port=port) as backend:
            ended = launch("", **environ)
            assert (ended.code, ended.err) == (0, "")
            _all(backend, 400)

    def test_keeps_to_one_deadline_over_all_signals(self, launch: Launch, backend: Backend, tmp_path: Path) -> None:
        backend.default_answer = Answer(delay_s=30)
        environ = _environ(
            tmp_path / "spool", backend.endpoint, WEIR_SHUTDOWN_TIMEOUT="2", OTEL_METRICS_EXPORTER="otlp"
        )
        quick = launch("", **environ | {"OTEL_SDK_DISABLED": "true"}).took_s
        ended = launch(_service(""), **environ)
        assert ended.code == 0
        assert ended.took_s < quick + 2 + 5
        assert "200 traces" in ended.err
        backend.default_answer = Answer()
        backend.clear()
        assert launch("", **environ | {"WEIR_SHUTDOWN_TIMEOUT": "20"}).code == 0
        _all(backend)


class TestAnEndpointWithTroubles:
    @pytest.mark.parametrize(
        "answers",
        [
            [Answer(status=429, headers={"retry-after": "1"})],
            [Answer(status=503)] * 2,
            [Answer(status=500)],
            [Answer(hang_up=True)] * 2,
        ],
        ids=["429", "503", "500", "cut"],
    )
    def test_gets_all_of_it_in_the_end(
        self, launch: Launch, backend: Backend, tmp_path: Path, answers: list[Answer]
    ) -> None:
        backend.answers += answers
        ended = launch(_service(""), **_environ(tmp_path / "spool", backend.endpoint, WEIR_SHUTDOWN_TIMEOUT="20"))
        assert ended.code == 0
        _all(backend)

    def test_that_takes_only_small_requests_gets_small_ones(
        self, launch: Launch, backend: Backend, tmp_path: Path
    ) -> None:
        backend.max_body = 8192
        environ = _environ(tmp_path / "spool", backend.endpoint, WEIR_SHUTDOWN_TIMEOUT="20")
        assert launch(_service(""), **environ).code == 0
        _all(backend)
        first = sum(len(request.body) > 8192 for request in backend.requests)
        backend.clear()
        assert launch(_service(""), **environ).code == 0
        _all(backend)
        # The next process knows, and only looks for the limit more closely.
        assert sum(len(request.body) > 8192 for request in backend.requests) < first / 2


class TestAFlush:
    def test_tells_the_truth(self, launch: Launch, backend: Backend, tmp_path: Path) -> None:
        backend.answers.append(Answer(status=503, headers={"retry-after": "600"}))
        program = """
            import logging
            from opentelemetry import trace
            from opentelemetry._logs import get_logger_provider
            import otelweir
            handle = otelweir.configure("shop")
            logging.getLogger("shop").warning("order 1")
            result = handle.flush(5)
            print(bool(result), result.waiting, result.lost, result.where)
            print(get_logger_provider().force_flush(1000), trace.get_tracer_provider().force_flush(1000))
        """
        spool = tmp_path / "spool"
        ended = launch.plain(program, **_environ(spool, backend.endpoint))
        assert ended.out == f"False 1 0 {spool}\nFalse True\n"

    def test_is_for_what_was_there_when_it_was_called(self, launch: Launch, backend: Backend, tmp_path: Path) -> None:
        """Threads that never pause do not make it fail, nor keep it waiting."""
        program = """
            import logging, threading
            from opentelemetry import trace
            from opentelemetry._logs import get_logger_provider
            import otelweir
            handle = otelweir.configure("shop")
            busy = True
            def serve():
                while busy:
                    with trace.get_tracer("shop").start_as_current_span("order"):
                        logging.getLogger("shop").warning("order")
            threads = [threading.Thread(target=serve) for _ in range(2)]
            for thread in threads: thread.start()
            while not handle.flush(20).delivered: pass
            results = [handle.flush(20) for _ in range(5)]
            print(*map(bool, results))
            print(*(get_logger_provider().force_flush(20_000) for _ in range(5)))
            print(*(trace.get_tracer_provider().force_flush(20_000) for _ in range(5)))
            busy = False
            for thread in threads: thread.join()
        """
        environ = _environ(tmp_path / "spool", backend.endpoint, WEIR_SHUTDOWN_TIMEOUT="20")
        ended = launch.plain(program, **environ)
        assert ended.out == "True True True True True\n" * 3


class TestUpstreamsOwnExporters:
    def test_are_a_setting_away(self, launch: Launch, backend: Backend, tmp_path: Path) -> None:
        spool = tmp_path / "spool"
        ended = launch(_service(""), **_environ(spool, backend.endpoint, WEIR_SPOOL="false"))
        assert (ended.code, ended.err) == (0, "")
        _all(backend)
        assert not spool.exists()
        assert all("Python" in request.headers["user-agent"] for request in backend.requests)
        assert not any("otelweir" in request.headers["user-agent"] for request in backend.requests)


class TestTheExportersAlone:
    PROGRAM = """
        import os, sys
        from opentelemetry._logs import LogRecord
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from otelweir import WeirLogExporter, WeirMetricExporter, WeirSpanExporter

        tracers = TracerProvider()
        tracers.add_span_processor(BatchSpanProcessor(WeirSpanExporter({endpoint!r})))
        loggers = LoggerProvider()
        loggers.add_log_record_processor(BatchLogRecordProcessor(WeirLogExporter({endpoint!r})))
        meters = MeterProvider([PeriodicExportingMetricReader(WeirMetricExporter({endpoint!r}))])
        for n in range(200):
            with tracers.get_tracer("shop").start_as_current_span(f"order {{n}}"):
                loggers.get_logger("shop").emit(LogRecord(body=f"order {{n}}"))
        meters.get_meter("shop").create_counter("orders").add(200)
        {end}
    """

    @pytest.mark.parametrize("end", ["", "tracers.force_flush(); loggers.force_flush(); os._exit(0)"])
    def test_work_under_a_stock_set_up(self, launch: Launch, backend: Backend, tmp_path: Path, end: str) -> None:
        environ = {"WEIR_SPOOL_DIR": str(tmp_path / "spool"), "OTEL_SERVICE_NAME": "shop"}
        ended = launch.plain(self.PROGRAM.format(endpoint=backend.endpoint, end=end), **environ)
        assert (ended.code, ended.err) == (0, "")
        if end:
            launch.plain(
                self.PROGRAM.format(endpoint=backend.endpoint, end="").replace("range(200)", "range(0)"), **environ
            )
        _all(backend)
        assert [metric.name for metric in backend.metrics if metric.name == "orders"]

    def test_to_two_places_keep_their_records_apart(self, launch: Launch, backend: Backend, tmp_path: Path) -> None:
        program = """
            import time
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import SimpleSpanProcessor
            from otelweir import WeirSpanExporter
            providers = []
            for endpoint in {endpoints!r}:
                providers.append(TracerProvider())
                providers[-1].add_span_processor(SimpleSpanProcessor(WeirSpanExporter(endpoint)))
                providers[-1].get_tracer("shop").start_span(endpoint).end()
        """
        environ = {"XDG_STATE_HOME": str(tmp_path), "OTEL_SERVICE_NAME": "shop"}
        with Backend() as second:
            endpoints = [backend.endpoint, second.endpoint]
            for answer, names in (
                (Answer(status=503), [[], []]),
                (Answer(), [[endpoint] * 2 for endpoint in endpoints]),
            ):
                backend.default_answer = second.default_answer = answer
                assert launch.plain(program.format(endpoints=endpoints), **environ).code == 0
                assert [[span.name for span in to.spans] for to in (backend, second)] == names
                if not names[0]:
                    self._drain_leaves_the_second_alone(second, environ)

    @staticmethod
    def _drain_leaves_the_second_alone(second: Backend, environ: dict[str, str]) -> None:
        """Without a folder it does not know where to send that; nothing listens where it sends the first."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("weir")), "spool", "drain", "--timeout", "1"],
            env=os.environ | environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{_unused_port()}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"is left alone: its records go to {second.endpoint}/v1/traces." in done.stderr
        assert done.returncode == 1
