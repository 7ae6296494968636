"""A store, a server, and makers of rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otelweir.devserver import DevServer, Store
from otelweir.devserver.rows import Batch, LogRow, PointRow, ResourceRow, RollupRow, SpanRow

MINUTE_NS = 60 * 10**9


class Make:
    """Rows with everything filled in; what a test is about, it names."""

    now_ns = 28_000_000 * MINUTE_NS
    shop = ResourceRow("shop-1", "shop", '{"service.name":"shop"}')

    def log(self, **changes: Any) -> LogRow:
        row = LogRow(
            time_ns=self.now_ns,
            severity=9,
            severity_text="INFO",
            body="user 7 logged in",
            event="",
            trace_id="",
            span_id="",
            resource=self.shop.key,
            service=self.shop.service,
            scope="shop.users",
            pattern_id="p1",
            template="user <*> logged in",
            weight=1.0,
            reason="first",
            is_new=False,
            attributes="{}",
        )
        return row._replace(**changes)

    def rollup(self, **changes: Any) -> RollupRow:
        row = RollupRow(
            time_ns=self.now_ns,
            resource=self.shop.key,
            pattern_id="p1",
            severity=9,
            template="user <*> logged in",
            logger="shop.users",
            seen=100,
            kept=10,
            first_ns=self.now_ns - MINUTE_NS,
            last_ns=self.now_ns,
        )
        return row._replace(**changes)

    def span(self, **changes: Any) -> SpanRow:
        row = SpanRow(
            trace_id="aa" * 16,
            span_id="01" * 8,
            parent_id="",
            name="GET /",
            kind="server",
            start_ns=self.now_ns,
            end_ns=self.now_ns + 10**6,
            status="unset",
            status_message="",
            resource=self.shop.key,
            service=self.shop.service,
            scope="http",
            attributes="{}",
            events="[]",
            links="[]",
        )
        return row._replace(**changes)

    def point(self, **changes: Any) -> PointRow:
        row = PointRow(
            time_ns=self.now_ns,
            start_ns=0,
            name="orders",
            description="",
            unit="1",
            kind="sum",
            temporality="cumulative",
            monotonic=True,
            value=3,
            measurements=None,
            resource=self.shop.key,
            service=self.shop.service,
            scope="shop",
            attributes="{}",
            detail="{}",
        )
        return row._replace(**changes)

    def batch(self, *rows: LogRow | RollupRow | SpanRow | PointRow, resources: tuple[ResourceRow, ...] = ()) -> Batch:
        batch = Batch("logs", resources={one.key: one for one in (self.shop, *resources)})
        for row in rows:
            match row:
                case LogRow():
                    batch.logs.append(row)
                case RollupRow():
                    batch.rollups.append(row)
                case SpanRow():
                    batch.spans.append(row)
                    batch.signal = "traces"
                case PointRow():
                    batch.points.append(row)
                    batch.signal = "metrics"
        return batch


@pytest.fixture
def make() -> Make:
    return Make()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "telemetry.sqlite3") as store:
        yield store


@pytest.fixture
def server() -> Iterator[DevServer]:
    with DevServer(port=0) as server:
        yield server
