"""`otelweir.configure()`: the same pipeline in one line. Each test has a process: providers are set once in one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otelweir.testing import Answer, Backend

if TYPE_CHECKING:
    from tests.distro.conftest import Launch


def _bodies(backend: Backend) -> list[str]:
    return [log.body for log in backend.logs if log.event_name != "weir.log.pattern.rollup"]


class TestConfigure:
    def test_is_one_line(self, launch: Launch, backend: Backend) -> None:
        program = f"""
            import logging, otelweir
            from opentelemetry import metrics, trace
            handle = otelweir.configure("shop", "{backend.endpoint}", headers={{"api-key": "secret"}},
                                        environment="test", resource_attributes={{"team": "x"}}, log_sampling="off")
            assert otelweir.configure() is handle
            with trace.get_tracer("t").start_as_current_span("work"):
                logging.error("hello")
            metrics.get_meter("m").create_counter("orders").add(1)
            print(bool(handle.flush()), handle)
            logging.error("after the flush")
            print(*map(bool, (handle.shutdown(), handle.shutdown(), handle.flush())), handle)
            logging.error("after the shutdown")
            print(otelweir.configure() is handle)
        """
        ended = launch.plain(program, OTEL_SERVICE_NAME="other", OTEL_RESOURCE_ATTRIBUTES="team=y,a=b")
        assert ended.code == 0
        assert ended.out.splitlines() == [
            "True <Handle running, sampler None>",
            "True True True <Handle ended, sampler None>",
            "True",
        ]
        lines = [line for line in ended.err.splitlines() if line]
        assert [line for line in lines if "WEIR" not in line] == [
            f"ERROR:root:{body}" for body in ("hello", "after the flush", "after the shutdown")
        ]
        assert ended.err.count("WEIR-CONFIG-004") == 1
        assert "cannot start again" in ended.err
        assert _bodies(backend) == ["hello", "after the flush"]
        assert [span.name for span in backend.spans] == ["work"]
        assert "orders" in {metric.name for metric in backend.metrics}
        resource = backend.logs[0].resource
        wanted = {"service.name": "shop", "team": "x", "a": "b", "deployment.environment.name": "test"}
        assert wanted.items() <= resource.items()
        assert {request.headers["api-key"] for request in backend.requests} == {"secret"}

    def test_under_the_launcher_changes_nothing_and_says_so_once(self, launch: Launch, backend: Backend) -> None:
        program = """
            import logging, otelweir
            first = otelweir.configure("other", endpoint="http://127.0.0.1:1")
            second = otelweir.configure("other")
            logging.error("hello")
            print(first is second, bool(first.flush()))
        """
        ended = launch(program, OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint, OTEL_SERVICE_NAME="shop")
        assert (ended.code, ended.out) == (0, "True True\n")
        assert ended.err.count("WEIR-CONFIG-004") == 1
        assert "after opentelemetry-instrument" in ended.err
        assert (_bodies(backend), backend.logs[0].resource["service.name"]) == (["hello"], "shop")

    def test_refuses_names_that_are_no_settings_and_falls_back_from_bad_values(
        self, launch: Launch, backend: Backend
    ) -> None:
        program = """
            import logging, otelweir
            try:
                otelweir.configure(log_samplin="off")
            except TypeError as error:
                print(error)
            handle = otelweir.configure(endpoint="localhost:4318", log_sampling="sometimes")
            logging.error("hello")
            print(handle.settings.settings.log_sampling, bool(handle.flush()))
        """
        ended = launch.plain(program, OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint)
        assert ended.code == 0
        assert "did you mean log_sampling" in ended.out and ended.out.endswith("on True\n")
        assert "WEIR_LOG_SAMPLING='sometimes'" in ended.err and "endpoint='localhost:4318'" in ended.err
        assert _bodies(backend) == ["hello"]

    def test_leaves_providers_alone_that_the_program_has_set_up(self, launch: Launch, backend: Backend) -> None:
        """Records go to the program's logger provider, once, though its handler stands on the root logger."""
        program = f"""
            import logging, otelweir
            from opentelemetry import _logs, trace
            from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
            from opentelemetry.instrumentation.logging.handler import LoggingHandler
            from opentelemetry.sdk._logs import LoggerProvider
            from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
            from opentelemetry.sdk.resources import Resource
            provider = LoggerProvider(resource=Resource({{"service.name": "mine"}}))
            provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter("{backend.endpoint}/v1/logs")))
            _logs.set_logger_provider(provider)
            logging.getLogger().addHandler(LoggingHandler())
            logging.getLogger().addHandler(logging.StreamHandler())
            handle = otelweir.configure("weir", "{backend.endpoint}")
            logging.warning("hello")
            with trace.get_tracer("t").start_as_current_span("work"):
                pass
            print(_logs.get_logger_provider() is provider, bool(handle.flush()))
            handle.shutdown()
            logging.warning("by the program's own means")
        """
        ended = launch.plain(program)
        assert (ended.code, ended.out) == (0, "True True\n")
        assert "the providers of logs are set and stay as they are" in ended.err
        assert [log.body for log in backend.logs if log.scope == "root"] == ["hello", "by the program's own means"]
        assert {log.resource["service.name"] for log in backend.logs} == {"mine"}
        assert [span.resource["service.name"] for span in backend.spans] == ["weir"]

    def test_tells_whether_everything_was_taken(self, launch: Launch, backend: Backend) -> None:
        backend.default_answer = Answer(status=400)
        program = """
            import logging, otelweir
            handle = otelweir.configure()
            for message in ("lost", "lost, too"):
                print(bool(result := handle.flush()), result)
                logging.error(message)
            print(bool(result := handle.shutdown()), result)
        """
        environ = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "WEIR_LOG_SAMPLING": "off"}
        ended = launch.plain(program, OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint, **environ)
        assert (ended.code, ended.out) == (0, "True nothing had to be sent\n" + "False logs: 1 lost (rejected 1)\n" * 2)
        assert "Traceback" not in ended.err


class TestTheEnd:
    """A process ends in time, without a traceback, whatever the endpoint does."""

    PROGRAM = """
        import atexit, logging, sys, threading, time
        from opentelemetry import metrics, trace
        with trace.get_tracer("t").start_as_current_span("work"):
            logging.getLogger("a").error("hello")
        metrics.get_meter("m").create_counter("orders").add(1)
        atexit.register(logging.getLogger("a").error, "registered later, so run earlier")
        def chatter():
            while True:
                logging.getLogger("daemon").info("still here")
                time.sleep(0.001)
        logging.getLogger("daemon").setLevel(1)
        threading.Thread(target=chatter, daemon=True).start()
        threading.Thread(target=lambda: (time.sleep(0.3), logging.getLogger("a").error("from a thread"))).start()
    """

    def test_everything_is_sent(self, launch: Launch, backend: Backend) -> None:
        ended = launch(self.PROGRAM, OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint)
        assert (ended.code, ended.err) == (0, "hello\nfrom a thread\nregistered later, so run earlier\n")
        assert [log.body for log in backend.logs if log.scope == "a"] == [
            "hello",
            "from a thread",
            "registered later, so run earlier",
        ]
        assert backend.spans and backend.metrics

    @pytest.mark.parametrize("ending", ["sys.exit(3)", "1 / 0"])
    def test_it_is_sent_whatever_the_end(self, launch: Launch, backend: Backend, ending: str) -> None:
        ended = launch(
            f"import logging, sys\nlogging.error('hello')\n{ending}\n", OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint
        )
        assert ended.code == (3 if "exit" in ending else 1)
        assert _bodies(backend) == ["hello"]

    @pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
    @pytest.mark.parametrize("endpoint", ["refuses", "hangs"])
    def test_it_does_not_wait_for_ever(self, launch: Launch, backend: Backend, endpoint: str, protocol: str) -> None:
        backend.default_answer = Answer(delay_s=30.0)
        if endpoint == "refuses":
            backend.stop()
        ended = launch(
            self.PROGRAM,
            OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            WEIR_SHUTDOWN_TIMEOUT="1.5",
        )
        assert ended.code == 0
        # Less than the answer takes: 1.5 s, the start of the process, and whatever a busy machine needs besides.
        assert ended.took_s < 28
        assert "Traceback" not in ended.err and "Fatal" not in ended.err
        assert len(ended.err.splitlines()) < 25
