"""structlog's events become log records, each once, and the application's own output stays as it was."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from otelweir.pipeline.capture import logging_bridge
from otelweir.pipeline.sample.logs import LogSampler, Rules
from otelweir.pipeline.sample.logs.flight import FlightRecorder
from otelweir.signals import Verdict
from otelweir.testing import MemoryLogs

structlog = pytest.importorskip("structlog", reason="needs structlog: pip install 'otelweir[structlog]'")

from otelweir.pipeline.capture.structlog import Processor  # noqa: E402


@pytest.fixture
def memory() -> MemoryLogs:
    return MemoryLogs()


@pytest.fixture(autouse=True)
def _defaults() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging_bridge.uninstall()


class Printed:
    """A structlog logger that writes JSON lines into memory."""

    def __init__(self, memory: MemoryLogs | None, *before: Any, **options: Any) -> None:
        self.output = io.StringIO()
        processor = Processor(lambda: memory.capture if memory else None)
        structlog.configure(
            processors=[*before, processor, structlog.processors.JSONRenderer(default=str)],
            logger_factory=structlog.PrintLoggerFactory(self.output),
            **options,
        )
        self.log = structlog.get_logger()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.getvalue().splitlines()]


class TestAnEvent:
    def test_is_the_body_and_the_bound_values_are_attributes(self, memory: MemoryLogs) -> None:
        log = Printed(memory).log.bind(shop="north")
        log.info("order placed", order={"id": 7, "items": [1, 2]}, total=9.5)
        (record,) = memory.logs
        assert record.body == "order placed"
        assert record.severity_text == "INFO"
        assert record.severity_number == 9
        got = {key: record.attributes[key] for key in ("shop", "order", "total")}
        assert got == {"shop": "north", "order": {"id": 7, "items": [1, 2]}, "total": 9.5}

    def test_goes_on_unchanged_to_what_renders(self, memory: MemoryLogs) -> None:
        """The application prints the same with and without Weir."""
        with_weir, without = Printed(memory), Printed(None)
        for printed in (with_weir, without):
            structlog.configure(logger_factory=structlog.PrintLoggerFactory(printed.output))
            structlog.get_logger().warning("low", left=3)
        assert with_weir.lines() == without.lines() == [{"left": 3, "event": "low"}]

    def test_says_where_it_was_logged(self, memory: MemoryLogs) -> None:
        Printed(memory).log.info("here")
        (record,) = memory.logs
        assert record.scope == __name__
        assert record.attributes["code.file.path"] == __file__
        assert record.attributes["code.function.name"] == "test_says_where_it_was_logged"

    async def test_logged_with_await_says_where_too(self, memory: MemoryLogs) -> None:
        """structlog runs the chain in a thread, whose stack does not lead to the caller."""
        await Printed(memory, wrapper_class=structlog.make_filtering_bound_logger(0)).log.ainfo("here")
        (record,) = memory.logs
        assert record.scope == __name__
        assert record.attributes["code.function.name"] == "test_logged_with_await_says_where_too"

    def test_carries_context_variables(self, memory: MemoryLogs) -> None:
        log = Printed(memory, structlog.contextvars.merge_contextvars).log
        with structlog.contextvars.bound_contextvars(tenant="a"):
            log.info("one")
        assert memory.logs[0].attributes["tenant"] == "a"

    def test_below_the_level_of_the_filter_is_not_captured(self, memory: MemoryLogs) -> None:
        log = Printed(memory, wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING)).log
        log.info("quiet")
        log.warning("loud")
        assert [record.body for record in memory.logs] == ["loud"]

    @pytest.mark.parametrize(
        ("method", "text", "number"),
        [
            ("debug", "DEBUG", 5),
            ("msg", "INFO", 9),
            ("warn", "WARN", 13),
            ("error", "ERROR", 17),
            ("fatal", "FATAL", 21),
        ],
    )
    def test_has_the_severity_of_its_method(self, memory: MemoryLogs, method: str, text: str, number: int) -> None:
        getattr(Printed(memory).log, method)("x")
        assert [(record.severity_text, record.severity_number) for record in memory.logs] == [(text, number)]

    def test_does_not_repeat_what_structlog_adds_about_it(self, memory: MemoryLogs) -> None:
        """Level and time are fields of a log record."""
        Printed(memory, structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso")).log.info("x")
        assert not {"level", "timestamp", "event"} & memory.logs[0].attributes.keys()

    def test_keeps_a_bound_value_that_only_shares_the_name(self, memory: MemoryLogs) -> None:
        Printed(memory).log.info("next", level=3)
        assert memory.logs[0].attributes["level"] == 3

    def test_without_weir_configured_is_only_printed(self) -> None:
        printed = Printed(None)
        printed.log.info("x")
        assert printed.lines() == [{"event": "x"}]

    def test_that_is_no_text_is_kept_as_it_is(self, memory: MemoryLogs) -> None:
        Printed(memory).log.info({"kind": "order"})
        assert memory.logs[0].body == {"kind": "order"}


class TestAnException:
    def test_becomes_exception_attributes(self, memory: MemoryLogs) -> None:
        log = Printed(memory, structlog.dev.set_exc_info).log
        try:
            _ = 1 // 0
        except ZeroDivisionError:
            log.exception("failed")
        attributes = memory.logs[0].attributes
        assert attributes["exception.type"] == "ZeroDivisionError"
        assert attributes["exception.message"] == "integer division or modulo by zero"
        assert "test_becomes_exception_attributes" in attributes["exception.stacktrace"]
        assert memory.logs[0].severity_number == 17

    def test_given_as_a_value_counts_too(self, memory: MemoryLogs) -> None:
        Printed(memory).log.error("failed", exc_info=ValueError("no"))
        assert memory.logs[0].attributes["exception.type"] == "ValueError"
        assert "exc_info" not in memory.logs[0].attributes

    @pytest.mark.parametrize("formatting", ["format_exc_info", "dict_tracebacks"])
    def test_formatted_by_an_earlier_processor_is_recognised(self, memory: MemoryLogs, formatting: str) -> None:
        Printed(memory, getattr(structlog.processors, formatting)).log.error("failed", exc_info=ValueError("no"))
        attributes = memory.logs[0].attributes
        assert (attributes["exception.type"], attributes["exception.message"]) == ("ValueError", "no")

    def test_true_without_an_exception_adds_nothing(self, memory: MemoryLogs) -> None:
        Printed(memory).log.error("failed", exc_info=True)
        assert not [key for key in memory.logs[0].attributes if key.startswith("exception")]


class TestTheDecision:
    def test_comes_before_anything_is_rendered(self) -> None:
        """A record that is not kept costs no formatting."""

        class Rendered:
            def __str__(self) -> str:
                raise AssertionError("rendered")

        sampler = Deciding(None)
        memory = MemoryLogs(sampler)
        structlog.configure(
            processors=[Processor(lambda: memory.capture), drop], wrapper_class=structlog.stdlib.BoundLogger
        )
        structlog.get_logger().info("user %s", Rendered())
        assert memory.logs == []
        assert sampler.asked[0][2] == "user %s"

    def test_knows_the_format_string_of_positional_arguments(self) -> None:
        sampler = Deciding({"weir.sample.weight": 4.0})
        memory = MemoryLogs(sampler)
        structlog.configure(
            processors=[Processor(lambda: memory.capture), drop], wrapper_class=structlog.stdlib.BoundLogger
        )
        structlog.get_logger().info("user %s of %d", "ann", 3)
        assert sampler.asked[0][2:4] == ("user %s of %d", ("ann", 3))
        assert memory.logs[0].body == "user ann of 3"
        assert memory.logs[0].attributes["weir.sample.weight"] == 4.0


def test_what_is_not_kept_can_be_held() -> None:
    """With the bound values as they were: they are what an event of structlog tells."""
    recorder = FlightRecorder()
    memory = MemoryLogs()
    memory.capture.sampler, memory.capture.recorder = LogSampler(Rules("on", {"info": 0.0}, 1, 1e9)), recorder
    log = Printed(memory).log
    for number in range(3):
        log.info("order placed", total=number, to=object())
    log.error("it failed")
    bodies = [(record.body, record.attributes.get("total")) for record in memory.logs]
    assert bodies == [("order placed", 0), ("order placed", 1), ("order placed", 2), ("it failed", None)]
    assert memory.logs[1].attributes["to"] == "<object>"
    assert memory.logs[1].attributes["weir.sample.weight"] == 0


class TestThroughLogging:
    """structlog often ends in `logging`, whose records the bridge captures."""

    @pytest.fixture
    def heard(self) -> Iterator[list[logging.LogRecord]]:
        records: list[logging.LogRecord] = []

        class Keep(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                records.append(record)

        logger, handler = logging.getLogger("shop.orders"), Keep()
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        yield records
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)

    @staticmethod
    def configure(memory: MemoryLogs, *rest: Any) -> Any:
        logging_bridge.install(memory.capture)
        structlog.configure(
            processors=[structlog.stdlib.add_logger_name, Processor(lambda: memory.capture), *rest],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
        )
        return structlog.get_logger("shop.orders")

    @pytest.mark.parametrize(
        "last",
        [
            structlog.processors.JSONRenderer(),
            structlog.stdlib.render_to_log_kwargs,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        ids=["rendered", "extra", "formatter"],
    )
    def test_an_event_is_captured_once_with_its_values(
        self, memory: MemoryLogs, heard: list[logging.LogRecord], last: Any
    ) -> None:
        self.configure(memory, last).info("order placed", items=[1, 2])
        assert [(record.scope, record.body) for record in memory.logs] == [("shop.orders", "order placed")]
        assert memory.logs[0].attributes["items"] == [1, 2]
        assert len(heard) == 1

    def test_a_record_after_a_dropped_event_is_still_captured(
        self, memory: MemoryLogs, heard: list[logging.LogRecord]
    ) -> None:
        """What a later processor drops never reaches `logging`; its mark must not swallow the next record."""
        self.configure(memory, drop).info("dropped")
        logging.getLogger("shop.orders").info("plain")
        assert [record.body for record in memory.logs] == ["dropped", "plain"]

    def test_a_record_that_a_processor_makes_is_captured(
        self, memory: MemoryLogs, heard: list[logging.LogRecord]
    ) -> None:
        def noisy(logger: logging.Logger, _: str, event: dict[str, Any]) -> dict[str, Any]:
            logger.warning("from the chain")
            return event

        self.configure(memory, noisy, structlog.processors.JSONRenderer()).info("event")
        assert sorted(record.body for record in memory.logs) == ["event", "from the chain"]

    def test_an_event_that_the_logger_does_not_let_through_is_not_captured(
        self, memory: MemoryLogs, heard: list[logging.LogRecord]
    ) -> None:
        self.configure(memory, structlog.processors.JSONRenderer()).debug("quiet")
        assert (memory.logs, heard) == ([], [])

    def test_a_processor_formatter_with_our_processor_captures_nothing_twice(self, memory: MemoryLogs) -> None:
        """There the records are the bridge's already."""
        logging_bridge.install(memory.capture)
        output = io.StringIO()
        handler = logging.StreamHandler(output)
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                processors=[Processor(lambda: memory.capture), structlog.processors.JSONRenderer(default=str)]
            )
        )
        logger = logging.getLogger("shop.plain")
        logger.addHandler(handler)
        try:
            logger.warning("plain")
        finally:
            logger.removeHandler(handler)
        assert [record.body for record in memory.logs] == ["plain"]

    def test_many_tasks_and_threads_capture_each_event_once(
        self, memory: MemoryLogs, heard: list[logging.LogRecord]
    ) -> None:
        log = self.configure(memory, structlog.processors.JSONRenderer())

        async def main() -> None:
            await asyncio.gather(
                *(asyncio.to_thread(log.info, "n", i=i) for i in range(50)),
                *(log.ainfo("n", i=i) for i in range(50, 100)),
            )

        asyncio.run(main())
        assert sorted(record.attributes["i"] for record in memory.logs) == list(range(100))


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


def drop(*_: Any) -> Any:
    raise structlog.DropEvent
