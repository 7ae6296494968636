"""The instruments, read by the SDK's own reader while a courier sends to a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.semconv._incubating.metrics import otel_metrics

from otelweir.pipeline.spool import Spool, encode_log, join
from otelweir.pipeline.transmit import Backoff, Breaker, Courier, Delivered, Gate, HttpSender, Route
from otelweir.pipeline.transmit.courier import Sent
from otelweir.selfmetrics import Exchanges, Tally
from otelweir.selfmetrics.names import INSTRUMENTS
from otelweir.selfmetrics.otel import instruments
from otelweir.signals import Lane, Loss
from otelweir.testing import Answer, Backend, Clock


class World:
    """A spool, a courier to a real server, and the instruments of both."""

    def __init__(self, folder: Path, backend: Backend, **arguments: Any) -> None:
        self.clock, self.backend = Clock(), backend
        self.exchanges = Exchanges()
        self.spool = Spool(folder, min_free_bytes=0, lost=self._lost)
        self.tally = Tally(self.spool.accepted)
        self.sender = HttpSender(f"{backend.endpoint}/v1/logs", dict, compression="gzip")
        gate = Gate(
            backend.endpoint,
            clock=self.clock,
            breaker=Breaker(),
            backoff=Backoff(1.0, 60.0),
            chance=lambda: 1.0,
        )
        self.courier = Courier(
            self.spool,
            {"logs": Route(self.sender, gate)},
            join=join,
            counts=self.tally,
            clock=self.clock,
            observe=self.exchanges,
        )
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        arguments = {"clock": self.clock, "max_bytes": 10_000_000, **arguments}
        instruments(self.provider, self.tally, self.spool, self.courier, self.exchanges, **arguments)
        self.logger = LoggerProvider(shutdown_on_exit=False)
        keep = SimpleNamespace(on_emit=lambda record: self.spool.append("logs", encode_log(record)))
        self.logger.add_log_record_processor(keep)  # type: ignore[arg-type]

    def _lost(self, lane: Lane, why: Loss, records: int) -> None:
        self.tally.lost(lane, why, records)

    def log(self, records: int) -> None:
        for number in range(records):
            self.logger.get_logger("shop").emit(body=f"order {number}")

    def send(self) -> None:
        while self.courier.turn():
            pass

    def metrics(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name: str) -> list[tuple[dict[str, Any], float]]:
        """Attributes and value of each point; the count, for a histogram."""
        return [
            (dict(point.attributes), point.count if isinstance(point, HistogramDataPoint) else point.value)
            for point in self.metrics()[name].data.data_points
        ]

    def by(self, name: str, *attributes: str) -> dict[Any, float]:
        found = {tuple(at.get(one) for one in attributes): value for at, value in self.points(name)}
        return {key[0] if len(key) == 1 else key: value for key, value in found.items()}

    def close(self) -> None:
        self.provider.shutdown()
        self.sender.close()
        self.spool.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Backend() as backend:
        world = World(tmp_path / "shop", backend)
        yield world
        world.close()


def conventions() -> dict[str, tuple[str, str]]:
    """Kind and unit of each metric of the conventions, by name."""
    kinds = {"create_counter": "counter", "create_up_down_counter": "updowncounter", "create_histogram": "histogram"}
    found: dict[str, tuple[str, str]] = {}

    class Meter:
        def __getattr__(self, kind: str) -> Any:
            return lambda name, description, unit: found.setdefault(name, (kinds[kind], unit))

    for name in dir(otel_metrics):
        if name.startswith("create_"):
            getattr(otel_metrics, name)(Meter())
    return found


class TestNames:
    @pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda instrument: instrument.name)
    def test_are_those_of_the_conventions_or_weirs_own(self, instrument: Any) -> None:
        if instrument.name.startswith("weir."):
            assert instrument.name not in conventions()
        else:
            assert conventions()[instrument.name] == (instrument.kind, instrument.unit)

    def test_all_are_there_once_something_was_sent(self, world: World) -> None:
        world.log(1)
        world.send()
        world.tally.lost("logs", Loss.REJECTED, 0)
        missing = {instrument.name for instrument in INSTRUMENTS} - set(world.metrics())
        assert missing == {"weir.delivery.lost"}

    def test_units_meaning_and_attributes_are_as_documented(self, world: World) -> None:
        world.log(1)
        world.backend.answers.append(Answer(400))
        world.send()
        found = world.metrics()
        assert set(found) == {instrument.name for instrument in INSTRUMENTS}
        for instrument in INSTRUMENTS:
            metric = found[instrument.name]
            assert (metric.unit, metric.description) == (instrument.unit, instrument.meaning)
            for point in metric.data.data_points:
                assert set(point.attributes) <= set(instrument.attributes)


class TestNumbers:
    def test_accepted_is_delivered_and_lost_and_waiting(self, world: World) -> None:
        world.log(10)
        world.send()
        world.log(1)
        world.backend.answers.append(Answer(400))
        world.send()
        world.log(3)
        assert world.by("weir.spool.accepted", "weir.signal") == {"traces": 0, "logs": 14, "metrics": 0}
        assert world.by("weir.delivery.delivered", "weir.signal")["logs"] == 10
        assert world.by("weir.delivery.lost", "weir.signal", "weir.loss.reason") == {("logs", "rejected"): 1}
        assert world.by("weir.spool.waiting", "weir.signal")["logs"] == 3
        assert world.by("otel.sdk.exporter.log.exported", "error.type") == {None: 10, "rejected": 1}
        assert world.by("otel.sdk.exporter.log.inflight", "otel.component.name") == {"weir_log_exporter/0": 3}
        assert world.by("otel.sdk.exporter.span.exported", "error.type") == {None: 0}

    def test_a_process_that_sends_nothing_says_nothing_of_it(self, world: World) -> None:
        assert world.metrics() == {}

    def test_an_exporter_says_where_it_sends_to(self, world: World) -> None:
        world.log(1)
        [(attributes, _)] = world.points("otel.sdk.exporter.log.inflight")
        port = int(world.backend.endpoint.rpartition(":")[2])
        assert attributes == {
            "otel.component.name": "weir_log_exporter/0",
            "otel.component.type": "otlp_http_log_exporter",
            "server.address": "127.0.0.1",
            "server.port": port,
        }

    def test_the_spool_has_a_size_a_limit_and_an_age(self, world: World) -> None:
        world.log(1)
        assert world.points("weir.spool.size") == [({}, world.spool.disk_bytes())]
        assert world.spool.disk_bytes() > 0
        assert world.points("weir.spool.limit") == [({}, 10_000_000)]
        assert world.by("weir.spool.oldest_age", "weir.signal")["logs"] >= 0

    def test_requests_have_a_size_a_time_and_a_ratio(self, world: World) -> None:
        world.log(500)
        world.backend.answers.append(Answer(503))
        world.send()
        world.clock.advance(2)
        world.send()
        assert world.by("weir.delivery.response.time", "weir.signal", "error.type") == {
            ("logs", "503"): 1,
            ("logs", None): 1,
        }
        assert world.by("weir.delivery.batch.size", "weir.signal") == {"logs": 2}
        assert world.by("weir.delivery.compression.ratio", "weir.signal")["logs"] > 2
        assert world.by("weir.delivery.batch.target", "weir.signal")["logs"] > 0

    def test_an_operation_lasts_from_its_first_attempt_to_its_end(self, world: World) -> None:
        """As the convention has it: one observation, with the waits between the attempts."""
        world.log(1)
        world.backend.answers += [Answer(503), Answer(503)]
        for _ in range(3):
            world.clock.advance(60)
            world.send()
        [point] = world.metrics()["otel.sdk.exporter.operation.duration"].data.data_points
        assert (point.count, point.sum) == (1, 120.0)
        assert "error.type" not in point.attributes

    def test_a_forked_childs_operations_begin_with_it(
        self, world: World, in_a_child: Callable[[Callable[[], bool]], bool]
    ) -> None:
        world.log(1)
        world.backend.answers.append(Answer(503))
        world.send()

        def lasts_as_long_as_its_own_request() -> bool:
            world.clock.advance(1000)
            world.exchanges(Sent("logs", 1, 10, 10, 3.0, Delivered()))
            [point] = world.metrics()["otel.sdk.exporter.operation.duration"].data.data_points
            return bool(point.sum == 3.0)

        assert in_a_child(lasts_as_long_as_its_own_request)

    def test_a_breaker_is_in_one_state(self, world: World) -> None:
        def states() -> dict[str, float]:
            return world.by("weir.delivery.breaker.state", "weir.breaker.state")

        world.log(1)
        assert states() == {"closed": 1, "open": 0, "half-open": 0}
        world.backend.stop()
        for _ in range(5):
            world.clock.advance(world.courier.wait_s() + 0.1)
            world.courier.turn()
        assert states() == {"closed": 0, "open": 1, "half-open": 0}


class TestSurroundings:
    def test_other_exporters_names_can_be_left_to_them(self, tmp_path: Path) -> None:
        with Backend() as backend:
            world = World(tmp_path / "shop", backend, sdk_names=False)
            world.log(1)
            world.send()
            assert not [name for name in world.metrics() if name.startswith("otel.")]
            world.close()

    def test_grpc_has_a_type_of_its_own(self, tmp_path: Path) -> None:
        with Backend() as backend:
            world = World(tmp_path / "shop", backend, protocols={"logs": "grpc"})
            world.log(1)
            assert world.by("otel.sdk.exporter.log.inflight", "otel.component.type") == {"otlp_grpc_log_exporter": 1}
            assert world.by("otel.sdk.exporter.span.inflight", "otel.component.type") == {"otlp_http_span_exporter": 0}
            world.close()

    def test_the_sdks_own_metrics_have_other_names(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
        with Backend() as backend:
            world = World(tmp_path / "shop", backend)
            theirs = LoggerProvider(shutdown_on_exit=False, meter_provider=world.provider)
            theirs.get_logger("shop").emit(body="x")
            data = world.reader.get_metrics_data()
            assert data is not None
            scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
            names = [metric.name for scope in scopes for metric in scope.metrics]
            assert "otel.sdk.log.created" in names
            assert len(names) == len(set(names))
            world.close()

    def test_a_source_that_fails_takes_only_its_own_metric(self, world: World) -> None:
        def fail() -> int:
            raise OSError

        world.log(1)
        world.spool.disk_bytes = fail  # type: ignore[method-assign]
        found = world.metrics()
        assert "weir.spool.size" not in found
        assert "weir.spool.accepted" in found

    @pytest.mark.parametrize(
        ("endpoint", "expected"),
        [
            ("https://collector.example", ("collector.example", 443)),
            ("http://collector", ("collector", 80)),
            ("collector:4317", ("collector", 4317)),
            ("collector", ("collector", None)),
            ("http://[::1]:4318", ("::1", 4318)),
            ("http://[broken", (None, None)),
            ("http://host:99999", (None, None)),
            ("", (None, None)),
        ],
    )
    def test_an_endpoint_tells_its_server(self, world: World, endpoint: str, expected: tuple[Any, Any]) -> None:
        world.log(1)
        state = world.courier.state()["logs"]
        world.courier.state = lambda: {"logs": replace(state, endpoint=endpoint)}  # type: ignore[method-assign]
        [(attributes, _)] = world.points("otel.sdk.exporter.log.inflight")
        assert (attributes.get("server.address"), attributes.get("server.port")) == expected
