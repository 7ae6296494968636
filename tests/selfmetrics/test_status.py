"""What a process says of itself: whole for who wrote it, harmless for who reads it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk._logs import LoggerProvider

from otelweir.pipeline.spool import Spool, encode_log, join
from otelweir.pipeline.transmit import Courier, Gate, HttpSender, Route
from otelweir.selfmetrics import Exchanges, Status, Tally, read_status
from otelweir.selfmetrics.status import status
from otelweir.signals import Loss
from otelweir.testing import Answer, Backend, Clock


class World:
    def __init__(self, folder: Path, backend: Backend) -> None:
        self.clock = Clock()
        self.exchanges = Exchanges()
        self.spool = Spool(folder, min_free_bytes=0)
        self.tally = Tally(self.spool.accepted)
        self.sender = HttpSender(f"{backend.endpoint}/v1/logs", dict)
        name = backend.endpoint.replace("//", "//me:secret@")
        routes: Any = {"logs": Route(self.sender, Gate(name, clock=self.clock, chance=lambda: 1.0))}
        self.courier = Courier(
            self.spool, routes, join=join, counts=self.tally, clock=self.clock, observe=self.exchanges
        )
        provider = LoggerProvider(shutdown_on_exit=False)
        keep = SimpleNamespace(on_emit=lambda record: self.spool.append("logs", encode_log(record)))
        provider.add_log_record_processor(keep)  # type: ignore[arg-type]
        self.logger = provider.get_logger("shop")

    def status(self) -> dict[str, Any]:
        return status(
            self.tally,
            self.spool,
            self.courier,
            self.exchanges,
            service="shop",
            started=1000.0,
            time=1060.5,
            max_bytes=2**29,
        )


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as backend:
        yield backend


@pytest.fixture
def world(tmp_path: Path, backend: Backend) -> Iterator[World]:
    world = World(tmp_path / "shop", backend)
    yield world
    world.sender.close()
    world.spool.close()


def test_what_is_published_is_what_is_read(world: World, backend: Backend) -> None:
    for number in range(10):
        world.logger.emit(body=f"order {number}")
    while world.courier.turn():
        pass
    world.tally.lost("logs", Loss.CORRUPT, 0)
    world.logger.emit(body="late")
    backend.answers.append(Answer(503))
    world.courier.turn()
    world.spool.publish(world.status())
    home = world.spool.home
    assert home is not None
    said = read_status(home)
    assert said == read_status(home / "status.json")
    assert said is not None
    assert (said.pid, said.service, said.started, said.time) == (os.getpid(), "shop", 1000.0, 1060.5)
    assert (said.folder, said.max_bytes) == (str(world.spool.folder), 2**29)
    assert 0 < said.disk_bytes <= world.spool.disk_bytes()
    logs = said.lanes["logs"]
    assert (logs.delivered, logs.lost, logs.waiting, logs.accepted) == (10, {}, 1, 11)
    assert logs.outcomes == {"delivered": 1, "retry_after": 1}
    assert (logs.breaker, logs.failing) == ("closed", "HTTP 503")
    assert logs.wait_s > 0
    assert logs.waiting_bytes > 0
    assert said.lanes["traces"].endpoint == ""


def test_no_credentials_are_in_it(world: World) -> None:
    assert "secret" not in json.dumps(world.status())
    assert world.status()["lanes"]["logs"]["endpoint"].startswith("http://***@127.0.0.1:")


def test_it_is_json_even_before_anything_happened(world: World) -> None:
    assert json.loads(json.dumps(world.status(), allow_nan=False))["weir_status"] == 1


class TestReading:
    def test_nothing_there_is_none(self, tmp_path: Path) -> None:
        assert read_status(tmp_path) is None
        assert read_status(tmp_path / "missing.json") is None

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "[]",
            "null",
            "{}",
            '{"weir_status": 2, "lanes": {}}',
            '{"weir_status": 1}',
            "[" * 100_000,
            "1" * 300_000,
        ],
    )
    def test_what_is_torn_or_foreign_is_none(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "status.json").write_text(text)
        assert read_status(tmp_path) is None

    def test_links_and_pipes_are_not_followed(self, tmp_path: Path) -> None:
        """A pipe would hang whoever opens it."""
        (tmp_path / "real").write_text('{"weir_status": 1, "lanes": {}}')
        (tmp_path / "status.json").symlink_to(tmp_path / "real")
        assert read_status(tmp_path) is None
        os.mkfifo(tmp_path / "pipe")
        assert read_status(tmp_path / "pipe") is None

    def test_every_cut_of_a_document_is_none_or_the_whole(self, world: World, tmp_path: Path) -> None:
        text = json.dumps(world.status())
        path = tmp_path / "cut"
        for end in range(0, len(text), 7):
            path.write_text(text[:end])
            assert read_status(path) is None

    def test_fields_that_do_not_fit_are_left_out(self, tmp_path: Path) -> None:
        lane = {"delivered": -1, "lost": {"rejected": "many", "corrupt": 2}, "waiting": True, "oldest_age_s": 1e400}
        lane["failing"] = "\x1b[31mred\n"
        document = {
            "weir_status": 1,
            "pid": "7",
            "service": ["x"],
            "more": 1,
            "lanes": {"logs": lane, "x": {}, "traces": 3},
        }
        (tmp_path / "status.json").write_text(json.dumps(document))
        said = read_status(tmp_path)
        assert said is not None
        assert (said.pid, said.service) == (0, "")
        assert set(said.lanes) == {"logs"}
        logs = said.lanes["logs"]
        assert (logs.delivered, logs.lost, logs.waiting, logs.oldest_age_s) == (0, {"corrupt": 2}, 0, 0.0)
        assert logs.failing == "�[31mred�"

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    )
    lane_names = st.sampled_from(["delivered", "lost", "waiting", "oldest_age_s", "endpoint", "outcomes", "last_s"])
    names = st.sampled_from(["pid", "service", "started", "time", "folder", "disk_bytes", "lanes"])

    @given(
        st.dictionaries(names, json_values | st.fixed_dictionaries({"logs": st.dictionaries(lane_names, json_values)}))
    )
    def test_no_document_raises(self, tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]) -> None:
        path = tmp_path_factory.getbasetemp() / "any.json"
        path.write_text(json.dumps({"weir_status": 1, **document}), encoding="utf-8", errors="surrogatepass")
        said = read_status(path)
        assert said is None or isinstance(said, Status)
        if said is not None:
            assert all(lane.accepted >= 0 for lane in said.lanes.values())

    @given(st.binary(max_size=200))
    def test_no_bytes_raise(self, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
        path = tmp_path_factory.getbasetemp() / "bytes.json"
        path.write_bytes(content)
        assert read_status(path) is None
