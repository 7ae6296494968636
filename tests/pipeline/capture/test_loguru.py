"""Loguru's records become log records, each once, and its other sinks see no difference."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from otelweir.pipeline.capture import context, logging_bridge
from otelweir.pipeline.sample.logs import LogSampler, Rules
from otelweir.pipeline.sample.logs.flight import FlightRecorder
from otelweir.signals import Verdict
from otelweir.testing import MemoryLogs

loguru = pytest.importorskip("loguru", reason="needs Loguru: pip install 'otelweir[loguru]'")

from otelweir.pipeline.capture.loguru import Sink  # noqa: E402

log = loguru.logger


@pytest.fixture
def memory() -> MemoryLogs:
    return MemoryLogs()


@pytest.fixture(autouse=True)
def _only_our_sinks() -> Iterator[None]:
    log.remove()
    yield
    log.remove()
    log.configure(handlers=[], extra={}, patcher=lambda record: None)
    logging_bridge.uninstall()


def add(memory: MemoryLogs, **options: Any) -> Sink:
    sink = Sink(lambda: memory.capture, logging_bridge.installed)
    log.add(sink, **{"filter": sink.filter, "level": 0, "catch": False, **options})
    return sink


class TestARecord:
    def test_has_the_message_as_body_and_extra_as_attributes(self, memory: MemoryLogs) -> None:
        add(memory)
        log.bind(order={"id": 7}).info("{} placed by {user}", "order", user="ann")
        (record,) = memory.logs
        assert record.body == "order placed by ann"
        assert record.attributes["order"] == {"id": 7}
        assert record.attributes["user"] == "ann"

    def test_says_where_and_when_it_was_logged(self, memory: MemoryLogs) -> None:
        add(memory)
        log.info("here")
        (record,) = memory.logs
        assert record.scope == __name__
        assert record.attributes["code.file.path"] == __file__
        assert record.attributes["code.function.name"] == "test_says_where_and_when_it_was_logged"
        age_s = datetime.now(UTC).timestamp() - record.time_unix_nano / 1e9
        assert 0 <= age_s < 5

    @pytest.mark.parametrize(
        ("level", "text", "number"),
        [
            ("TRACE", "TRACE", 3),
            ("DEBUG", "DEBUG", 5),
            ("INFO", "INFO", 9),
            ("SUCCESS", "SUCCESS", 12),
            ("WARNING", "WARN", 13),
            ("ERROR", "ERROR", 17),
            ("CRITICAL", "FATAL", 21),
        ],
    )
    def test_has_the_severity_of_its_level(self, memory: MemoryLogs, level: str, text: str, number: int) -> None:
        add(memory)
        log.log(level, "x")
        assert [(record.severity_text, record.severity_number) for record in memory.logs] == [(text, number)]

    def test_below_the_sinks_level_is_not_captured(self, memory: MemoryLogs) -> None:
        add(memory, level="INFO")
        log.debug("quiet")
        log.info("loud")
        assert [record.body for record in memory.logs] == ["loud"]

    def test_keeps_its_exception(self, memory: MemoryLogs) -> None:
        add(memory)
        try:
            _ = 1 // 0
        except ZeroDivisionError:
            log.exception("failed")
        attributes = memory.logs[0].attributes
        assert attributes["exception.type"] == "ZeroDivisionError"
        assert "test_keeps_its_exception" in attributes["exception.stacktrace"]

    def test_made_by_catch_keeps_the_exception(self, memory: MemoryLogs) -> None:
        add(memory)

        @log.catch  # type: ignore[untyped-decorator]
        def fails() -> None:
            raise ValueError("no")

        fails()
        assert memory.logs[0].attributes["exception.message"] == "no"

    def test_made_lazily_has_the_values(self, memory: MemoryLogs) -> None:
        add(memory)
        log.opt(lazy=True).info("{}", lambda: 42)
        assert memory.logs[0].body == "42"

    def test_with_the_sink_behind_a_queue_is_captured(self, memory: MemoryLogs) -> None:
        """Somebody may add the sink like any other."""
        add(memory, enqueue=True, filter=None)
        log.error("late")
        log.complete()
        assert [record.body for record in memory.logs] == ["late"]

    def test_carries_the_attributes_of_the_context(self, memory: MemoryLogs) -> None:
        add(memory)
        with context.log_attributes({"tenant": "a"}):
            log.info("x")
        assert memory.logs[0].attributes["tenant"] == "a"

    def test_without_weir_configured_goes_to_the_other_sinks_only(self) -> None:
        sink, output = Sink(lambda: None, logging_bridge.installed), io.StringIO()
        log.add(sink, filter=sink.filter, catch=False)
        log.add(output, format="{message}")
        log.info("x")
        assert output.getvalue() == "x\n"


class TestTheDecision:
    def test_comes_before_the_sink_formats_anything(self) -> None:
        sampler = Deciding(None)
        memory = MemoryLogs(sampler)

        def formatted(record: Any) -> str:
            raise AssertionError("formatted")

        add(memory, format=formatted)
        log.info("x")
        assert memory.logs == []
        assert sampler.asked[0][2] == "x"

    def test_is_asked_with_the_call_site(self) -> None:
        """The template is in the source; Loguru's record has only the finished message."""
        sampler = Deciding({})
        add(MemoryLogs(sampler))
        log.info("user {}", 7)  # noqa: PLE1205
        line = sys._getframe().f_lineno - 1
        assert sampler.asked[0][4:] == (__file__, line, "test_is_asked_with_the_call_site")


def test_what_is_not_kept_can_be_held(memory: MemoryLogs) -> None:
    memory.capture.sampler, memory.capture.recorder = LogSampler(Rules("on", {"info": 0.0}, 1, 1e9)), FlightRecorder()
    add(memory)
    for number in range(3):
        log.bind(total=number).info("placed")
    log.error("it failed")
    bodies = [(record.body, record.attributes.get("total")) for record in memory.logs]
    assert bodies == [("placed", 0), ("placed", 1), ("placed", 2), ("it failed", None)]


class TestOtherSinks:
    def test_see_no_difference(self, memory: MemoryLogs) -> None:
        outputs = []
        for with_weir in (False, True):
            log.remove()
            output = io.StringIO()
            if with_weir:
                add(memory)
            log.add(output, format="{level} {extra} {message} {exception}")
            log.bind(a=[1]).warning("x {}", 1)
            outputs.append(output.getvalue())
        assert outputs[0] == outputs[1] != ""


class TestWithLogging:
    def test_a_record_that_logging_hands_to_loguru_is_captured_once(self, memory: MemoryLogs) -> None:
        """The recipe named InterceptHandler. The bridge has the record as it was made: logger, arguments, extra."""

        class InterceptHandler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                log.opt(depth=6, exception=record.exc_info).log(record.levelname, record.getMessage())

        add(memory)
        logging_bridge.install(memory.capture)
        logger = logging.getLogger("shop.intercepted")
        logger.addHandler(handler := InterceptHandler())
        try:
            logger.warning("left: %d", 3, extra={"item": "tea"})
            log.info("its own")
        finally:
            logger.removeHandler(handler)
        assert [(record.scope, record.body) for record in memory.logs] == [
            ("shop.intercepted", "left: 3"),
            (__name__, "its own"),
        ]
        assert memory.logs[0].attributes["item"] == "tea"

    def test_without_the_bridge_such_a_record_is_captured_here(self, memory: MemoryLogs) -> None:
        class InterceptHandler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                log.log(record.levelname, record.getMessage())

        add(memory)
        logger = logging.getLogger("shop.intercepted")
        logger.addHandler(handler := InterceptHandler())
        try:
            logger.warning("left")
        finally:
            logger.removeHandler(handler)
        assert [record.body for record in memory.logs] == ["left"]

    def test_a_record_that_a_handler_logs_by_itself_is_captured(self, memory: MemoryLogs) -> None:
        class Chatty(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                log.info("handler at work")

        add(memory)
        logging_bridge.install(memory.capture)
        logger = logging.getLogger("shop.chatty")
        logger.addHandler(handler := Chatty())
        try:
            logger.warning("left")
        finally:
            logger.removeHandler(handler)
        assert sorted(record.body for record in memory.logs) == ["handler at work", "left"]

    def test_a_record_that_loguru_hands_to_logging_is_captured_once(self, memory: MemoryLogs) -> None:
        """The recipe named PropagateHandler."""

        class PropagateHandler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                logging.getLogger(record.name).handle(record)

        add(memory)
        logging_bridge.install(memory.capture)
        log.add(PropagateHandler(), format="{message}")
        log.bind(order=[7]).warning("placed")
        logging.getLogger("shop.direct").warning("direct")
        assert [record.body for record in memory.logs] == ["placed", "direct"]
        assert memory.logs[0].attributes["order"] == [7]

    def test_threads_do_not_take_each_others_records_for_captured(self, memory: MemoryLogs) -> None:
        add(memory)
        logging_bridge.install(memory.capture)
        plain = logging.getLogger("shop.direct")

        def work(n: int) -> None:
            for i in range(50):
                log.warning("loguru {} {}", n, i)  # noqa: PLE1205
                plain.warning("plain %d %d", n, i)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = sorted(f"{kind} {n} {i}" for kind in ("loguru", "plain") for n in range(4) for i in range(50))
        assert sorted(record.body for record in memory.logs) == expected


class Deciding:
    """A sampler that always says the same."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.asked: list[tuple[Any, ...]] = []

    def call(self, *asked: Any) -> Verdict:
        return self.site(*asked)

    def site(self, *asked: Any) -> Verdict:
        self.asked.append(asked)
        return self.verdict

    def text(self, *asked: Any) -> Verdict:
        return self.site(*asked)
