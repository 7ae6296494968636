"""The demo's verdict: planted losses must not pass."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.demo.comparison import Comparison, LogFile, Received, Truth, compare, weight_bound
from otelweir.demo.run import received
from otelweir.devserver import Store
from otelweir.devserver.rows import Batch, LogRow, ResourceRow, RollupRow

IDS = ["e1", "e2", "e3"]


def a_truth() -> Truth:
    return Truth(Counter(debug=1000, info=500, error=3), list(IDS))


def what_fits() -> Received:
    return Received(
        records={"debug": 60, "info": 110, "error": 3},
        rolled_up={"debug": 1000, "info": 500, "error": 3},
        kept={"debug": 60, "info": 110, "error": 3},
        weights={"debug": 1010.0, "info": 495.0, "error": 3.0},
        rollups=3,
        error_ids=list(IDS),
        weight_bound=26.0,
    )


class TestWhatFits:
    def test_is_ok(self) -> None:
        comparison = compare(a_truth(), what_fits())
        assert comparison.differences == ()
        assert comparison.ok

    def test_counts_the_roll_ups_among_what_was_sent(self) -> None:
        """They go over the wire too; a share saved without them would flatter."""
        comparison = compare(a_truth(), what_fits())
        assert comparison.received.sent == 60 + 110 + 3 + 3
        assert comparison.share_saved == pytest.approx(1 - 176 / 1503)

    def test_the_order_of_errors_does_not_matter(self) -> None:
        assert compare(a_truth(), replace(what_fits(), error_ids=["e3", "e1", "e2"])).ok


class TestPlantedLosses:
    @pytest.mark.parametrize(
        ("plant", "says"),
        [
            ({"error_ids": ["e1", "e3"]}, "1 error did not arrive: e2"),
            ({"error_ids": []}, "3 errors did not arrive: e1, e2, e3"),
            ({"error_ids": ["e1", "e2", "e2", "e3"]}, "1 error arrived more than once: e2"),
            ({"error_ids": ["e1", "e2", "e2"]}, "1 error did not arrive: e3"),
            ({"error_ids": [*IDS, "e4"]}, "1 error arrived that the log file does not have"),
            ({"error_ids": [*IDS, "", ""]}, "2 errors arrived that the log file does not have"),
        ],
    )
    def test_errors_are_compared_one_by_one(self, plant: dict[str, list[str]], says: str) -> None:
        comparison = compare(a_truth(), replace(what_fits(), **plant))  # type: ignore[arg-type]
        assert says in comparison.errors
        assert not comparison.ok

    @pytest.mark.parametrize("off", [-1, 1, -1000])
    @pytest.mark.parametrize("severity", ["debug", "info", "error"])
    def test_a_count_that_is_off_by_one_is_found(self, severity: str, off: int) -> None:
        fits = what_fits()
        told = {**fits.rolled_up, severity: fits.rolled_up[severity] + off}
        comparison = compare(a_truth(), replace(fits, rolled_up=told))
        assert not comparison.ok
        assert [line.partition(":")[0] for line in comparison.counts] == [severity.upper()]

    def test_counts_that_are_off_in_opposite_ways_do_not_cancel(self) -> None:
        fits = what_fits()
        comparison = compare(a_truth(), replace(fits, rolled_up={"debug": 999, "info": 501, "error": 3}))
        assert len(comparison.counts) == 2

    def test_a_severity_that_was_never_logged_is_found(self) -> None:
        fits = what_fits()
        assert not compare(a_truth(), replace(fits, rolled_up={**fits.rolled_up, "warn": 1})).ok
        assert not compare(a_truth(), replace(fits, records={**fits.records, "trace": 1}, kept={"trace": 2})).ok

    def test_a_kept_record_that_did_not_arrive_is_found(self) -> None:
        comparison = compare(a_truth(), replace(what_fits(), records={"debug": 59, "info": 110, "error": 3}))
        assert comparison.counts == ("DEBUG: 60 records were kept, but 59 arrived",)

    def test_a_severity_without_roll_ups_is_found(self) -> None:
        comparison = compare(a_truth(), replace(what_fits(), rolled_up={}))
        assert len(comparison.counts) == 3

    @given(st.data())
    def test_any_loss_of_an_error_or_a_count_is_found(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.text("abc", min_size=1), min_size=1, unique=True))
        truth = Truth(Counter(info=7, error=len(ids)), ids)
        fits = Received({"info": 7, "error": len(ids)}, {"info": 7, "error": len(ids)}, {}, {"info": 7.0}, 2, ids, 1e9)
        assert compare(truth, fits).ok
        lost = data.draw(st.integers(0, len(ids) - 1))
        assert not compare(truth, replace(fits, error_ids=ids[:lost] + ids[lost + 1 :])).ok
        assert not compare(truth, replace(fits, error_ids=[*ids, ids[lost]])).ok
        off = data.draw(st.integers(-7, 7).filter(bool))
        assert not compare(truth, replace(fits, rolled_up={"info": 7 + off, "error": len(ids)})).ok


class TestNothingToCompare:
    def test_is_not_ok(self) -> None:
        """A service that never ran has lost nothing, and proves nothing."""
        comparison = compare(Truth(), Received({}, {}, {}, {}, 0, [], 0.0))
        assert not comparison.ok
        assert "the service logged nothing" in comparison.differences
        assert (comparison.share_saved, comparison.weight_deviation) == (0.0, 0.0)

    def test_a_run_without_an_error_is_not_ok(self) -> None:
        truth = Truth(Counter(info=10))
        assert not compare(truth, Received({"info": 10}, {"info": 10}, {}, {"info": 10.0}, 1, [], 1.0)).ok


class TestWeights:
    def test_may_be_off_as_far_as_chance_goes(self) -> None:
        assert compare(a_truth(), replace(what_fits(), weights={"debug": 1503 + 26.0})).ok

    @pytest.mark.parametrize("weight", [0.0, 1503 - 50.0, 1503 + 50.0, 3006.0])
    def test_may_not_be_off_further(self, weight: float) -> None:
        comparison = compare(a_truth(), replace(what_fits(), weights={"debug": weight}))
        assert len(comparison.weights) == 1
        assert not comparison.ok

    def test_the_bound_is_one_record_kept_of_each_pattern(self) -> None:
        assert weight_bound(["debug", "debug", "info", "error"], {"debug": 0.05, "info": 0.2}) == 20 + 20 + 5 + 1


class TestTheLogFile:
    def line(self, level: str, logger: str = "shop", **more: str) -> str:
        return json.dumps({"level": level, "logger": logger, "message": "m", **more}) + "\n"

    def test_is_counted_by_severity_with_the_ids_of_errors(self, tmp_path: Path) -> None:
        path = tmp_path / "service.log"
        levels = ["DEBUG", "INFO", "INFO", "WARNING"]
        errors = self.line("ERROR", incident="e1") + self.line("CRITICAL", incident="e2")
        path.write_text("".join(map(self.line, levels)) + errors)
        truth = LogFile(path).read_on()
        assert truth.by_severity == {"debug": 1, "info": 2, "warn": 1, "error": 1, "fatal": 1}
        assert (truth.error_ids, truth.logged, truth.errors) == (["e1", "e2"], 6, 2)

    def test_what_the_pipeline_says_of_itself_is_not_part_of_it(self, tmp_path: Path) -> None:
        path = tmp_path / "service.log"
        path.write_text(self.line("ERROR", "opentelemetry.sdk") + self.line("WARNING", "otelweir"))
        truth = LogFile(path).read_on()
        assert truth.logged == 0
        assert truth.own == ["ERROR opentelemetry.sdk: m", "WARNING otelweir: m"]

    def test_is_read_on_by_whole_lines(self, tmp_path: Path) -> None:
        path = tmp_path / "service.log"
        log = LogFile(path)
        assert log.read_on().logged == 0, "it need not exist yet"
        path.write_text(self.line("INFO") + self.line("INFO")[:9])
        assert log.read_on().logged == 1
        path.write_text(self.line("INFO") * 3)
        assert log.read_on().logged == 3


class TestAgainstARealStore:
    """The backend's answers, as the demo asks for them."""

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        with Store() as store:
            yield store

    def log(self, severity: int, time_ns: int, weight: float, **attributes: str) -> LogRow:
        return LogRow(
            time_ns, severity, "", "m", "", "", "", "r", "shop", "shop", f"p{severity}", "m", weight, "rate", False,
            json.dumps(attributes),
        )  # fmt: skip

    def batch(self, logs: list[LogRow], rollups: list[RollupRow]) -> Batch:
        return Batch("logs", {"r": ResourceRow("r", "shop", "{}")}, logs, rollups)

    def compared(self, store: Store, logs: list[LogRow], rollups: list[RollupRow]) -> Comparison:
        store.write(self.batch(logs, rollups))
        return compare(Truth(Counter(info=10, error=2), ["e1", "e2"]), received(store))

    LOGS = property(
        lambda self: [
            self.log(9, 1, 5.0),
            self.log(9, 2, 5.0),
            self.log(17, 3, 1.0, incident="e1"),
            self.log(17, 4, 1.0, incident="e2"),
        ]
    )
    ROLLUPS = (
        RollupRow(9, "r", "p9", 9, "m", "shop", 10, 2, 1, 5),
        RollupRow(9, "r", "p17", 17, "m", "shop", 2, 2, 1, 5),
    )

    def test_all_of_it_is_ok(self, store: Store) -> None:
        comparison = self.compared(store, self.LOGS, list(self.ROLLUPS))
        assert comparison.differences == ()
        assert (comparison.received.sent, comparison.received.weight) == (6, 12.0)

    @pytest.mark.parametrize("missing", range(4))
    def test_a_record_less_is_not(self, store: Store, missing: int) -> None:
        logs = self.LOGS
        del logs[missing]
        assert not self.compared(store, logs, list(self.ROLLUPS)).ok

    @pytest.mark.parametrize("missing", range(2))
    def test_a_roll_up_less_is_not(self, store: Store, missing: int) -> None:
        assert not self.compared(store, self.LOGS, [self.ROLLUPS[1 - missing]]).ok

    def test_an_error_twice_is_not(self, store: Store) -> None:
        logs = self.LOGS
        assert not self.compared(store, [*logs, logs[-1]], list(self.ROLLUPS)).ok
