"""Into ClickHouse: its engine, killed in a test, and the documentation's queries on what a service sent."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from tests.collector import clickhouse
from tests.collector.conftest import CONFIG, Collector, Service, free_port, until

if TYPE_CHECKING:
    Start = Callable[..., Collector]
    Run = Callable[..., Service]

WRITES = "gateway.yaml gateway-clickhouse.yaml"
QUERIES = dict(
    re.findall(r"^## ([^\n]+)\n(?:(?!\n## ).)*?```sql\n(.*?)```", (CONFIG / "clickhouse.md").read_text(), re.M | re.S)
)


class Server:
    """The engine, in a process of its own.

    Args:
        folder: An empty folder for its tables.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        # Compressed blocks are the client's and the server's business; see clickhouse.py for what is between them here.
        self.variables = {
            "CLICKHOUSE_ENDPOINT": f"http://127.0.0.1:{self._port}?compress=none",
            "CLICKHOUSE_FLUSH_TIMEOUT": "100ms",
        }

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, clickhouse.__file__, str(self._folder), str(self._port)], stdout=log, stderr=log
            )
        until(self._answers, "an answer of the engine")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
        try:
            return self.ask("SELECT 1 AS one") == [{"one": 1}]
        except OSError:
            return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)

    def ask(self, statement: str) -> list[dict[str, Any]]:
        """The rows of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request("POST", "/?" + urlencode({"default_format": "JSONEachRow"}), statement.encode())
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        assert answer.status == 200, text
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "clickhouse"
    folder.mkdir()
    one = Server(folder)
    try:
        one.start()
        yield one
    finally:
        one.kill()


class TestTheServer:
    def test_gets_everything_though_it_is_killed(self, collector: Start, service: Run, server: Server) -> None:
        """What is sent while it is away waits in the gateway's queue. Both, at least once."""
        gateway = collector(WRITES, "GATEWAY", **server.variables, DECISION_WAIT="1s", METRICS_INTERVAL="500ms")
        shop = service(gateway.endpoints["http/protobuf"])
        shop.do("orders 0 100")
        shop.delivers("logs", 100)
        server.kill()
        shop.do("orders 100 200")
        logs = shop.delivers("logs", 200)
        server.start()
        shop.do("orders 200 300")
        logs, spans = shop.delivers("logs", 300), shop.delivers("traces", 300)
        assert (logs.delivered, spans.delivered, logs.lost, spans.lost) == (300, 300, {}, {})

        counts = """
            SELECT (SELECT uniqExact(Body) FROM otel.otel_logs WHERE Body LIKE 'order %') AS logs,
                (SELECT uniqExact(SpanName) FROM otel.otel_traces) AS spans,
                (SELECT max(Value) FROM otel.otel_metrics_sum WHERE MetricName = 'orders') AS orders
        """
        until(
            lambda: server.ask(counts) == [{"logs": 300, "spans": 300, "orders": 300}],
            f"300 of each signal: {server.ask(counts)}",
        )


class TestTheQueriesOfTheDocumentation:
    def test_give_true_counts(self, collector: Start, service: Run, server: Server) -> None:
        gateway = collector(WRITES, "GATEWAY", **server.variables, DECISION_WAIT="1s", METRICS_INTERVAL="500ms")
        server.ask(QUERIES["A column for the weight"])
        shop = service(
            gateway.endpoints["grpc"],
            "grpc",
            WEIR_LOG_SAMPLING="on",
            WEIR_LOG_RATES="info=0.25",
            WEIR_FLIGHT_RECORDER="errors",
            OTEL_TRACES_SAMPLER="weir",
            OTEL_TRACES_SAMPLER_ARG="rate=0.25",
        )
        shop.run("""
            for n in range(1000):
                with tracer.start_as_current_span("checkout"):
                    logger.info("paid %d", n)
            parent = trace.set_span_in_context(trace.NonRecordingSpan(
                trace.SpanContext(1, 1, True, trace.TraceFlags(1))))
            with tracer.start_as_current_span("chat", parent, kind=trace.SpanKind.CLIENT, attributes={
                "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
                "gen_ai.request.model": "gpt-4o", "gen_ai.response.model": "gpt-4o",
                "gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 500,
            }) as chat:
                for n in range(200):
                    logger.info("asked %d", n)
                logger.error("declined")
                chat.set_status(trace.StatusCode.ERROR)
        """)
        shop.end()

        def row(query: str, **where: Any) -> dict[str, Any]:
            found = [row for row in server.ask(QUERIES[query]) if row.items() >= where.items()]
            return found[0] if len(found) == 1 else {}

        # What is exact.
        patterns = "Patterns, exactly"
        until(
            lambda: row(patterns, template="paid <*>").get("logged") == 1000,
            f"a roll-up: {server.ask(QUERIES[patterns])}",
        )
        assert row(patterns, template="asked <*>")["logged"] == 200
        assert row(patterns, template="paid <*>")["kept"] < 500
        until(
            lambda: row("What models cost", model="gpt-4o", currency="USD").get("cost") == pytest.approx(0.0075),
            "the cost of the call",
        )
        # What is estimated: the sum of weights.
        infos = row("Records, by what they stand for", SeverityText="INFO")
        assert infos["logged"] == pytest.approx(1200, rel=0.02)
        assert infos["kept"] < 600
        assert row("Records, by what they stand for", SeverityText="ERROR")["logged"] == 1
        measured = "Records, as the gateway measured them"
        until(
            lambda: row(measured, severity="INFO").get("logged") == pytest.approx(infos["logged"], abs=1),
            f"{infos['logged']} INFO: {server.ask(QUERIES[measured])}",
        )
        checkouts = row("Spans, by what they stand for", SpanName="checkout")
        assert checkouts["spans"] == 4 * checkouts["kept"]
        assert 150 < checkouts["kept"] < 350
        around = server.ask(QUERIES["The records around an error"])
        assert around[-1]["Body"] == "declined"
        assert 0 in {record["Weight"] for record in around}

        # The exporter's tables of later releases have another key, and no column for it.
        server.ask("CREATE DATABASE later")
        server.ask("""
            CREATE TABLE later.otel_logs ENGINE = MergeTree
            ORDER BY (toStartOfFiveMinutes(Timestamp), ServiceName, Timestamp)
            AS SELECT * EXCEPT (TimestampTime) FROM otel.otel_logs
        """)
        server.ask(QUERIES["A column for the weight"].replace("otel.otel_logs", "later.otel_logs"))
        for query in ("Records, by what they stand for", "Patterns, exactly"):
            now, later = (
                server.ask(QUERIES[query].replace("otel.otel_logs", table))
                for table in ("otel.otel_logs", "later.otel_logs")
            )
            assert sorted(now, key=repr) == sorted(later, key=repr)

    def test_are_all_tried(self) -> None:
        assert len(QUERIES) == (CONFIG / "clickhouse.md").read_text().count("```sql") == 7
