"""What arrives of the records of Python's `logging`: each once, with everything that belongs to it."""

from __future__ import annotations

import logging
import logging.handlers
import queue
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider

from otelweir.distro import compat
from otelweir.pipeline.capture import logging_bridge, quiet
from otelweir.pipeline.capture.otel import LogCapture
from otelweir.pipeline.sample.logs.rules import Rules
from otelweir.pipeline.sample.logs.sampler import LogSampler
from otelweir.testing import MemoryLogs, ReceivedLog

KEEP_ALL = Rules("on", {"trace": 1.0, "debug": 1.0, "info": 1.0, "warn": 1.0}, first=1, window_s=60.0)


class Taking(logging.Handler):
    """A handler of the application's own, which wants every record."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(params=["no sampler", "all rates 1"])
def memory(request: pytest.FixtureRequest) -> Iterator[MemoryLogs]:
    memory = MemoryLogs(None if request.param == "no sampler" else LogSampler(KEEP_ALL))
    logging_bridge.install(memory.capture)
    yield memory
    logging_bridge.uninstall()


@pytest.fixture(params=["nobody else", "another handler"])
def log(request: pytest.FixtureRequest) -> logging.Logger:
    """A logger whose records take either way: ended before they exist, or passed on."""
    # Not one of the manager's loggers: pytest adds handlers to all of these.
    logger = logging.Logger("shop.orders", 1)
    logger.addHandler(Taking() if request.param == "another handler" else logging.NullHandler())
    return logger


def only(memory: MemoryLogs) -> ReceivedLog:
    (found,) = memory.logs
    return found


def own(received: ReceivedLog) -> dict[str, Any]:
    """The attributes that the call gave: no place in the source, no word of the sampler."""
    return {
        name: value
        for name, value in received.attributes.items()
        if not name.startswith(("code.", "weir.", "log.record.", "sampling."))
    }


class TestARecord:
    def test_arrives_with_what_belongs_to_it(self, memory: MemoryLogs, log: logging.Logger) -> None:
        log.warning("order %d of %s", 7, "me", extra={"user": {"id": 1, "tags": ["a"]}, "amount": 2.5})
        found = only(memory)
        assert (found.body, found.scope, found.severity_number, found.severity_text) == (
            "order 7 of me",
            "shop.orders",
            13,
            "WARN",
        )
        assert own(found) == {"user": {"id": 1, "tags": ["a"]}, "amount": 2.5}
        assert found.attributes["code.file.path"] == __file__
        assert found.attributes["code.function.name"] == "test_arrives_with_what_belongs_to_it"
        assert isinstance(found.attributes["code.line.number"], int)
        assert 0 < found.observed_time_unix_nano - found.time_unix_nano + 1 < 10**10
        assert (found.trace_id, found.event_name) == ("", "")

    @pytest.mark.parametrize(
        ("level", "number", "text"),
        [
            (1, 1, "Level 1"),
            (6, 3, "Level 6"),
            (10, 5, "DEBUG"),
            (15, 8, "Level 15"),
            (20, 9, "INFO"),
            (25, 12, "Level 25"),
            (30, 13, "WARN"),
            (40, 17, "ERROR"),
            (50, 21, "FATAL"),
            (99, 24, "Level 99"),
        ],
    )
    def test_has_its_severity(
        self, memory: MemoryLogs, log: logging.Logger, level: int, number: int, text: str
    ) -> None:
        log.log(level, "hello")
        assert (only(memory).severity_number, only(memory).severity_text) == (number, text)

    def test_belongs_to_its_span(self, memory: MemoryLogs, log: logging.Logger) -> None:
        with TracerProvider(shutdown_on_exit=False).get_tracer("t").start_as_current_span("work") as span:
            log.info("inside")
        context = span.get_span_context()
        assert (only(memory).trace_id, only(memory).span_id) == (
            trace.format_trace_id(context.trace_id),
            trace.format_span_id(context.span_id),
        )

    def test_keeps_its_exception(self, memory: MemoryLogs, log: logging.Logger) -> None:
        class Lost(Exception):
            pass

        try:
            raise Lost("gone")
        except Lost as error:
            log.exception("one")
            log.info("two", exc_info=True)
            log.info("three", exc_info=error)
            log.info("four", exc_info=(type(error), error, error.__traceback__))
        log.info("five", exc_info=True)
        log.info("six", exc_info=(None, None, None))
        found = {received.body: own(received) for received in memory.logs}
        assert [len(found[name]) for name in ("one", "two", "three", "four", "five", "six")] == [3, 3, 3, 3, 0, 0]
        for name in ("one", "two", "three", "four"):
            kind = f"{Lost.__module__}.{Lost.__qualname__}"
            assert (found[name]["exception.type"], found[name]["exception.message"]) == (kind, "gone")
            assert found[name]["exception.stacktrace"].startswith("Traceback (most recent call last):")
            assert 'raise Lost("gone")' in found[name]["exception.stacktrace"]

    def test_with_an_exception_that_cannot_be_shown_arrives(self, memory: MemoryLogs, log: logging.Logger) -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no text")

        log.error("hello", exc_info=Mute())
        assert own(only(memory))["exception.message"] == "<Mute>"

    def test_can_be_an_event(self, memory: MemoryLogs, log: logging.Logger) -> None:
        log.info("cart checked out", extra={"otel.event.name": "checkout", "n": 1})
        assert (only(memory).event_name, own(only(memory))) == ("checkout", {"n": 1})

    def test_keeps_structure(self, memory: MemoryLogs, log: logging.Logger) -> None:
        log.info({"order": {"id": 1, "lines": [1, 2]}})
        log.info(["a", 1])
        assert [received.body for received in memory.logs] == [{"order": {"id": 1, "lines": [1, 2]}}, ["a", 1]]

    @pytest.mark.parametrize(
        ("msg", "args", "body"),
        [
            ("100%", (), "100%"),
            ("%d", ("x",), "%d"),
            ("%s %s", (1,), "%s %s"),
            ("%(a)s", ({"a": 1},), "1"),
            (5, (), "5"),
            ("", (), ""),
            ("nul\x00 \ud800", (), "nul\x00 \\ud800"),
        ],
    )
    def test_says_what_logging_says(
        self, memory: MemoryLogs, log: logging.Logger, msg: Any, args: tuple[Any, ...], body: str
    ) -> None:
        log.info(msg, *args)
        assert only(memory).body == body

    def test_of_a_megabyte_is_cut(self, memory: MemoryLogs, log: logging.Logger) -> None:
        log.info("x" * 5_000_000, extra={"text": "y" * 5_000_000})
        assert len(only(memory).body) < 300_000
        assert len(only(memory).attributes["text"]) < 300_000

    def test_with_stack_info_keeps_the_stack(self, memory: MemoryLogs, log: logging.Logger) -> None:
        log.info("hello", stack_info=True)
        assert only(memory).attributes["code.stacktrace"].startswith("Stack (most recent call last):")

    def test_points_to_its_caller(self, memory: MemoryLogs, log: logging.Logger) -> None:
        def helper(stacklevel: int) -> None:
            log.info("hello", stacklevel=stacklevel)

        helper(1)
        helper(2)
        assert [received.attributes["code.function.name"] for received in memory.logs] == [
            "helper",
            "test_points_to_its_caller",
        ]

    def test_with_more_attributes_than_allowed_loses_the_first_ones_in_silence(
        self, memory: MemoryLogs, log: logging.Logger
    ) -> None:
        """The SDK warns on stderr for each; the application would notice."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            log.info("hello", extra={f"k{n}": n for n in range(300)})
        found = only(memory)
        assert len(found.attributes) == 128
        assert "code.line.number" in found.attributes and "k0" not in found.attributes


class TestWhatIsCaptured:
    def test_is_what_passes_levels_and_filters(self, memory: MemoryLogs, log: logging.Logger) -> None:
        log.setLevel(logging.INFO)
        log.addFilter(lambda record: "secret" not in record.getMessage())
        log.debug("too low")
        log.info("a secret")
        log.info("fine")
        log.disabled = True
        log.error("disabled")
        log._log(logging.ERROR, "disabled, too", ())
        assert [received.body for received in memory.logs] == ["fine"]

    def test_are_records_made_elsewhere(self, memory: MemoryLogs, log: logging.Logger) -> None:
        log.handle(logging.makeLogRecord({"msg": "by hand", "name": "other", "levelno": 20, "levelname": "INFO"}))
        log.handle(logging.makeLogRecord({"msg": "x", "name": None, "levelno": 20, "exc_text": "Traceback…"}))
        first, second = memory.logs if memory.logs[0].body == "by hand" else reversed(memory.logs)
        assert (first.body, first.scope) == ("by hand", "other")
        assert second.attributes["exception.stacktrace"] == "Traceback…"

    def test_is_each_record_once_with_a_queue(self, memory: MemoryLogs, log: logging.Logger) -> None:
        records: queue.Queue[Any] = queue.Queue()
        listener = logging.handlers.QueueListener(records, Taking())
        log.addHandler(logging.handlers.QueueHandler(records))
        listener.start()
        for n in range(20):
            log.info("item %d", n)
        listener.stop()
        assert sorted(received.body for received in memory.logs) == sorted(f"item {n}" for n in range(20))

    def test_is_each_record_once_from_many_threads(self, memory: MemoryLogs, log: logging.Logger) -> None:
        def work(name: int) -> None:
            for n in range(100):
                log.info("%d of %d", n, name)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(received.body for received in memory.logs) == sorted(
            f"{n} of {name}" for n in range(100) for name in range(8)
        )

    @pytest.mark.parametrize("name", ["opentelemetry.sdk", "otelweir", "otelweir.x"])
    def test_are_no_records_of_the_sdk_and_of_weir(self, memory: MemoryLogs, name: str) -> None:
        logging.getLogger(name).error("about exporting")
        assert memory.logs == []

    def test_are_records_of_an_http_client_unless_an_exporter_uses_it(self, memory: MemoryLogs) -> None:
        client = logging.getLogger("urllib3.connectionpool")
        client.error("by the application")
        with suppress_instrumentation():
            client.error("by an exporter")
            logging.getLogger("shop").error("by the application, which suppresses its spans")
        with quiet.during(quiet.exporting):
            client.error("by an exporter of ours")
        assert sorted(received.body for received in memory.logs) == [
            "by the application",
            "by the application, which suppresses its spans",
        ]


class TestNothingIsDoubled:
    @pytest.fixture
    def theirs(self, memory: MemoryLogs) -> Iterator[Callable[[logging.Handler], None]]:
        """Adds an OpenTelemetry handler to the root logger, with the bridge installed as the distribution does it."""
        provider = memory.capture.provider
        compat.silence_other_log_handlers(
            lambda other: logging_bridge.installed() and other is provider, logging_bridge.deafen
        )
        logging_bridge.install(memory.capture)
        root, before = logging.getLogger(), list(logging.getLogger().handlers)
        yield root.addHandler
        root.handlers[:] = before

    def test_by_a_handler_for_the_same_provider(
        self, memory: MemoryLogs, theirs: Callable[[logging.Handler], None]
    ) -> None:
        theirs(LoggingHandler(logger_provider=memory.capture.provider))
        logging.getLogger("shop").error("once")
        named = logging.getLogger("shop.named")
        named.addHandler(LoggingHandler(logger_provider=memory.capture.provider))
        named.error("once, too")
        named.handlers.clear()
        assert sorted(received.body for received in memory.logs) == ["once", "once, too"]

    @pytest.mark.filterwarnings("ignore")
    def test_by_the_handler_of_the_sdk(self, memory: MemoryLogs, theirs: Callable[[logging.Handler], None]) -> None:
        sdk = pytest.importorskip("opentelemetry.sdk._logs")
        if not hasattr(sdk, "LoggingHandler"):
            pytest.skip("this SDK has no handler any more")
        theirs(sdk.LoggingHandler(logger_provider=memory.capture.provider))
        logging.getLogger("shop").error("once")
        assert [received.body for received in memory.logs] == ["once"]

    def test_while_a_handler_for_another_provider_works_on(
        self, memory: MemoryLogs, theirs: Callable[[logging.Handler], None]
    ) -> None:
        exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        other = LoggerProvider(shutdown_on_exit=False)
        other.add_log_record_processor(SimpleLogRecordProcessor(exporter))
        theirs(LoggingHandler(logger_provider=other))
        logging.getLogger("shop").error("both")
        assert [received.body for received in memory.logs] == ["both"]
        assert [found.log_record.body for found in exporter.get_finished_logs()] == ["both"]


class TestNothingRecurses:
    def test_when_a_processor_logs(self) -> None:
        class Chatty(LogRecordProcessor):
            def __init__(self) -> None:
                self.got: list[object] = []

            def on_emit(self, log_record: ReadWriteLogRecord) -> None:
                self.got.append(log_record.log_record.body)
                logging.getLogger("chatty").error("got a record")

            def shutdown(self) -> None: ...

            def force_flush(self, timeout_millis: int = 30000) -> bool:
                return True

        chatty = Chatty()
        provider = LoggerProvider(shutdown_on_exit=False)
        provider.add_log_record_processor(chatty)
        logging_bridge.install(LogCapture(provider, None))
        try:
            logging.getLogger("shop").error("hello")
        finally:
            logging_bridge.uninstall()
        assert chatty.got == ["hello"]

    def test_when_values_log(self, memory: MemoryLogs, log: logging.Logger) -> None:
        class Talks:
            def __str__(self) -> str:
                log.info("asked for my text")
                return "talks"

        log.info("value %s", Talks(), extra={"k": Talks()})
        log.info(Talks())
        assert [received.body for received in memory.logs] == ["value talks", "talks"]
        assert quiet.rendering == set()

    def test_when_a_provider_fails(self, caplog: pytest.LogCaptureFixture) -> None:
        class Broken(LoggerProvider):
            def get_logger(self, *args: Any, **kwargs: Any) -> Any:
                raise RuntimeError("broken")

        logging_bridge.install(LogCapture(Broken(shutdown_on_exit=False), None))
        try:
            for _ in range(3):
                logging.getLogger("shop").error("hello")
        finally:
            logging_bridge.uninstall()
        assert sum("WEIR-CAPTURE-001" in record.getMessage() for record in caplog.records) == 1
        assert [record.getMessage() for record in caplog.records if record.name == "shop"] == ["hello"] * 3

    def test_when_a_sampler_fails(self, log: logging.Logger) -> None:
        class Broken:
            def fail(self, *_: object) -> None:
                raise RuntimeError("broken")

            call = site = text = fail

        memory = MemoryLogs()
        memory.capture.sampler = Broken()
        logging_bridge.install(memory.capture)
        try:
            log.info("kept")
        finally:
            logging_bridge.uninstall()
        assert [received.body for received in memory.logs] == ["kept"]


class TestInstalling:
    def test_twice_replaces_and_once_undoes(self) -> None:
        before = logging.Logger.callHandlers, logging.Logger._log
        first, second = MemoryLogs(), MemoryLogs()
        logging_bridge.install(first.capture)
        logging_bridge.install(second.capture)
        logging.getLogger("shop").error("hello")
        logging_bridge.uninstall()
        assert (first.logs, len(second.logs)) == ([], 1)
        assert (logging.Logger.callHandlers, logging.Logger._log) == before
        logging.getLogger("shop").error("after")
        assert len(second.logs) == 1

    def test_over_the_patch_of_somebody_else_shows_them_every_record(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As error trackers patch it."""
        seen: list[str] = []
        original = logging.Logger.callHandlers

        def patched(self: logging.Logger, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())
            original(self, record)

        monkeypatch.setattr(logging.Logger, "callHandlers", patched)
        memory = MemoryLogs(LogSampler(Rules("on", {"info": 0.0}, first=1, window_s=60.0)))
        log = logging.Logger("patched", 1)
        log.addHandler(logging.NullHandler())
        logging_bridge.install(memory.capture)
        try:
            for n in range(3):
                log.info("hello %d", n)
        finally:
            logging_bridge.uninstall()
        assert seen == ["hello 0", "hello 1", "hello 2"]
        assert [received.body for received in memory.logs] == ["hello 0"]
        assert logging.Logger.callHandlers is patched

    def test_under_a_later_patch_of_somebody_else_stays_but_sleeps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        memory = MemoryLogs()
        with monkeypatch.context() as context:
            logging_bridge.install(memory.capture)
            ours = logging.Logger.callHandlers

            def patched(self: logging.Logger, record: logging.LogRecord) -> None:
                ours(self, record)

            context.setattr(logging.Logger, "callHandlers", patched)
            logging.getLogger("shop").error("captured")
            logging_bridge.uninstall()
            logging.getLogger("shop").error("not captured")
            assert logging.Logger.callHandlers is patched
        logging_bridge.install(memory.capture)
        logging.getLogger("shop").error("again, once")
        logging_bridge.uninstall()
        assert sorted(received.body for received in memory.logs) == ["again, once", "captured"]

    def test_without_the_source_of_logging_wraps_its_methods(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Some installations have no source files."""
        monkeypatch.setattr(logging_bridge, "spliced", lambda *_: None)
        memory, handler = MemoryLogs(LogSampler(KEEP_ALL)), Taking()
        log = logging.Logger("wrapped", 1)
        logging_bridge.install(memory.capture)
        try:
            log.handlers[:] = [logging.NullHandler()]
            log.info("one")
            log.handlers[:] = [handler]
            log.info("two")
        finally:
            logging_bridge.uninstall()
        assert [received.body for received in memory.logs] == ["one", "two"]
        name = "test_without_the_source_of_logging_wraps_its_methods"
        assert [received.attributes["code.function.name"] for received in memory.logs] == [name, name]
        assert [record.funcName for record in handler.records] == [name]
