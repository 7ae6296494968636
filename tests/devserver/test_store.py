"""The database: what was committed stays, and every count follows from the rows."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otelweir.devserver import LogTotal, Span, Store, StoreBusy
from otelweir.devserver.rows import SEVERITIES, ResourceRow
from otelweir.errors import ServerError

if TYPE_CHECKING:
    from tests.devserver.conftest import Make

SECOND_NS = 10**9


class TestOpening:
    def test_a_new_file_becomes_a_database_and_an_old_one_goes_on(self, tmp_path: Path, make: Make) -> None:
        path = tmp_path / "telemetry.sqlite3"
        for expected in (1, 2):
            with Store(path) as store:
                store.write(make.batch(make.log()))
                assert store.totals().received == expected

    def test_a_temporary_one_goes_with_the_store(self) -> None:
        with Store() as store:
            assert store.is_temporary
            assert store.path.exists()
        assert not store.path.parent.exists()

    def test_the_database_of_another_program_is_not_touched(self, tmp_path: Path) -> None:
        path = tmp_path / "theirs.sqlite3"
        with sqlite3.connect(path) as theirs:
            theirs.execute("CREATE TABLE logs (x)")
        with pytest.raises(ServerError, match="another program"):
            Store(path)
        assert theirs.execute("SELECT name FROM sqlite_schema").fetchall() == [("logs",)]
        theirs.close()

    @pytest.mark.parametrize("what", ["not a database", "a folder", "in a folder that is not there"])
    def test_what_cannot_be_opened_is_said(self, tmp_path: Path, what: str) -> None:
        path = tmp_path / "x"
        match what:
            case "not a database":
                path.write_text("Once upon a time. " * 100)
            case "a folder":
                path.mkdir()
            case _:
                path = path / "y"
        with pytest.raises(ServerError, match=r"WEIR-SERVER-002: .*x.* Choose another file with --db"):
            Store(path)

    def test_tables_of_another_version_are_not_touched(self, tmp_path: Path) -> None:
        path = tmp_path / "old.sqlite3"
        Store(path).close()
        with sqlite3.connect(path) as old:
            old.execute("PRAGMA user_version = 99")
        old.close()
        with pytest.raises(ServerError, match="another version of Weir"):
            Store(path)


class TestWriting:
    def test_a_batch_is_there_when_write_returns(self, store: Store, make: Make) -> None:
        store.write(make.batch(make.log(body="here")), size_bytes=42)
        assert [record.body for record in store.recent_records()] == ["here"]
        assert store.totals().intake["logs"].requests == 1
        assert store.totals().intake["logs"].bytes == 42
        assert store.revision == 1

    def test_a_batch_that_fails_leaves_nothing_and_the_next_one_fares_well(self, store: Store, make: Make) -> None:
        bad = make.batch(make.log(), make.log(time_ns=2**70))  # more than SQLite's integers hold
        with pytest.raises(OverflowError):
            store.write(bad)
        assert store.totals().intake["logs"].requests == 0
        assert (store.totals().received, store.revision) == (0, 0)
        store.write(make.batch(make.log()))
        assert store.totals().received == 1

    def test_a_full_queue_takes_nothing(self, tmp_path: Path, make: Make) -> None:
        """Better a sender that waits than a process that grows."""
        with Store(tmp_path / "db", queue_size=1) as store, sqlite3.connect(store.path) as other:
            other.execute("BEGIN IMMEDIATE")  # the writer has to wait
            taken: list[Future[None]] = []
            with pytest.raises(StoreBusy):
                taken.extend(store.submit(make.batch(make.log())) for _ in range(3))
            other.rollback()
            for done in taken:
                done.result()
            assert store.totals().received == len(taken)
        other.close()

    def test_close_commits_what_waits_and_takes_no_more(self, tmp_path: Path, make: Make) -> None:
        store = Store(tmp_path / "db")
        waiting = [store.submit(make.batch(make.log())) for _ in range(20)]
        store.close()
        store.close()
        assert all(done.done() and done.exception() is None for done in waiting)
        with pytest.raises(StoreBusy):
            store.submit(make.batch(make.log()))

    def test_old_rows_go_and_counts_stay(self, tmp_path: Path, make: Make) -> None:
        with Store(tmp_path / "db", keep_rows=50) as store:
            for number in range(200):
                trace_id = f"{number:032x}"
                store.write(make.batch(make.log(trace_id=trace_id)))
                store.write(make.batch(make.span(trace_id=trace_id)))
            assert (store.totals().received, store.totals().spans) == (200, 200)
            assert 50 <= len(store.recent_records(1000)) <= 60
            assert 50 <= len(store.traces(1000)) <= 60
            assert store.trace(f"{199:032x}")
            assert not store.trace(f"{0:032x}")

    def test_many_threads_may_write_and_read(self, store: Store, make: Make) -> None:
        def work() -> None:
            for _ in range(20):
                store.write(make.batch(make.log()))
                store.snapshot()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.totals().received == 160

    def test_no_question_can_write(self, store: Store) -> None:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            store.ask(lambda db: db.execute("DELETE FROM logs"))


class TestAfterAKill:
    def test_what_was_acknowledged_is_there_and_counts_agree(self, tmp_path: Path) -> None:
        """SIGKILL in the middle of writing loses at most what nobody was told is kept."""
        path = tmp_path / "telemetry.sqlite3"
        program = """
import sys
from otelweir.devserver import Store
sys.path.insert(0, sys.argv[2])
from conftest import Make
make = Make()
store = Store(sys.argv[1])
number = 0
while True:
    number += 1
    store.write(make.batch(*(make.log(weight=2.0, severity=17) for _ in range(10)), make.rollup(time_ns=number)))
    print(number, flush=True)
"""
        writer = subprocess.Popen(
            [sys.executable, "-c", program, path, Path(__file__).parent], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) == 30:
                break
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged = max([30, *(int(line) for line in writer.stdout if line.endswith("\n"))])
        writer.wait()
        writer.stdout.close()
        with Store(path) as store:
            assert store.ask(lambda db: db.execute("PRAGMA integrity_check").fetchone()) == ("ok",)
            batches = store.totals().intake["logs"].requests
            assert acknowledged <= batches <= acknowledged + 1
            assert store.ask(lambda db: db.execute("SELECT count(*) FROM logs").fetchone()) == (batches * 10,)
            [pattern] = store.patterns()
            assert store.log_totals()["info"].rolled_up == batches * 100
            assert (pattern.received, pattern.weight) == (batches * 10, batches * 20.0)


class TestLogTotals:
    def test_tells_received_and_weight_by_severity(self, store: Store, make: Make) -> None:
        store.write(make.batch(make.log(weight=5.0), make.log(weight=0.0), make.log(severity=17, pattern_id="p2")))
        assert store.log_totals() == {
            "info": LogTotal("info", received=2, weight=5.0, seen=5, kept=2, rolled_up=0, estimated=True),
            "error": LogTotal("error", received=1, weight=1.0, seen=1, kept=1, rolled_up=0, estimated=True),
        }

    def test_rollups_make_it_exact_and_are_no_records(self, store: Store, make: Make) -> None:
        store.write(make.batch(make.log(weight=90.0), make.rollup(seen=103, kept=1)))
        assert store.log_totals() == {
            "info": LogTotal("info", received=1, weight=90.0, seen=103, kept=1, rolled_up=103, estimated=False)
        }
        assert (store.totals().received, store.totals().rollups, store.totals().logged) == (1, 1, 103)

    def test_records_without_a_pattern_stand_for_themselves(self, store: Store, make: Make) -> None:
        """They come from a service without Weir: nothing to estimate."""
        store.write(make.batch(make.log(pattern_id="", template="")))
        totals = store.totals()
        assert (totals.logged, totals.estimated, totals.unpatterned, totals.patterns) == (1, False, 1, 0)
        assert store.patterns() == ()


class TestPatterns:
    def test_before_a_rollup_weights_are_the_estimate(self, store: Store, make: Make) -> None:
        store.write(make.batch(make.log(weight=1.0), make.log(weight=19.4)))
        [pattern] = store.patterns()
        assert (pattern.seen, pattern.kept, pattern.estimated) == (20, 2, True)

    def test_after_a_rollup_its_counts_hold(self, store: Store, make: Make) -> None:
        store.write(make.batch(make.log(weight=19.4)))
        store.write(make.batch(make.rollup(seen=23, kept=1)))
        [pattern] = store.patterns()
        assert (pattern.seen, pattern.kept, pattern.estimated, pattern.rolled_up) == (23, 1, False, 23)

    def test_what_comes_after_a_rollup_is_added_until_the_next_one(self, store: Store, make: Make) -> None:
        later = make.now_ns + SECOND_NS
        store.write(make.batch(make.rollup(seen=100, kept=10)))
        store.write(make.batch(make.log(weight=7.0, time_ns=later)))
        [pattern] = store.patterns()
        assert (pattern.seen, pattern.kept, pattern.estimated) == (107, 11, True)
        store.write(make.batch(make.rollup(seen=8, kept=1, time_ns=later, last_ns=later)))
        [pattern] = store.patterns()
        assert (pattern.seen, pattern.kept, pattern.estimated) == (108, 11, False)

    def test_a_record_that_arrives_behind_its_rollup_counts_once(self, store: Store, make: Make) -> None:
        """Requests overtake each other; the roll-up knew the record already."""
        store.write(make.batch(make.rollup(seen=100, kept=10)))
        store.write(make.batch(make.log(time_ns=make.now_ns)))
        [pattern] = store.patterns()
        assert (pattern.seen, pattern.kept, pattern.estimated) == (100, 10, False)

    def test_a_rollup_sent_twice_counts_once(self, store: Store, make: Make) -> None:
        """A sender whose answer got lost sends again."""
        for _ in range(2):
            store.write(make.batch(make.rollup()))
        assert store.patterns()[0].seen == 100

    def test_processes_add_up_and_one_without_rollups_stays_an_estimate(self, store: Store, make: Make) -> None:
        other = ResourceRow("cart-1", "cart", "{}")
        store.write(make.batch(make.log(), make.rollup(seen=100, kept=10)))
        store.write(make.batch(make.log(resource="cart-1", service="cart", weight=4.0), resources=(other,)))
        [pattern] = store.patterns()
        assert (pattern.seen, pattern.kept, pattern.estimated, pattern.services) == (104, 11, True, ("cart", "shop"))

    def test_the_largest_come_first(self, store: Store, make: Make) -> None:
        for number in range(5):
            store.write(make.batch(make.rollup(pattern_id=f"p{number}", seen=number)))
        assert [pattern.pattern_id for pattern in store.patterns(limit=3)] == ["p4", "p3", "p2"]

    def test_a_rollup_alone_makes_a_pattern(self, store: Store, make: Make) -> None:
        """All its records may have been left out."""
        store.write(make.batch(make.rollup(seen=4, kept=0)))
        [pattern] = store.patterns()
        assert (pattern.template, pattern.severity, pattern.logger) == ("user <*> logged in", "info", "shop.users")
        assert (pattern.received, pattern.saved) == (0, 1.0)

    @settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(
            st.lists(
                st.tuples(
                    st.sampled_from(["a", "b", ""]),
                    st.sampled_from([5, 9, 17]),
                    st.integers(0, 200),
                    st.sampled_from([0.0, 1.0, 2.5]),
                ),
                max_size=12,
            ),
            max_size=6,
        )
    )
    def test_counts_are_what_the_rows_add_up_to(
        self, make: Make, batches: list[list[tuple[str, int, int, float]]]
    ) -> None:
        """However they were spread over batches: totals, patterns and minutes tell the same."""
        rows = [row for batch in batches for row in batch]
        with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "db") as store:
            for batch in batches:
                store.write(
                    make.batch(
                        *(
                            make.log(pattern_id=pattern, severity=severity, time_ns=second * SECOND_NS, weight=weight)
                            for pattern, severity, second, weight in batch
                        )
                    )
                )
            by_severity = Counter(SEVERITIES[row[1]] for row in rows)
            by_pattern = Counter(row[0] for row in rows if row[0])
            assert {name: total.received for name, total in store.log_totals().items()} == by_severity
            assert {one.pattern_id: one.received for one in store.patterns()} == by_pattern
            for table in ("log_minutes", "pattern_minutes"):
                received, weight = store.ask(
                    lambda db, table=table: db.execute(  # type: ignore[misc]
                        f"SELECT total(received), total(weight) FROM {table}"
                    ).fetchone()
                )
                counted = [row for row in rows if row[0] or table == "log_minutes"]
                assert (received, weight) == (len(counted), sum(row[3] for row in counted))
            assert sum(one.weight for one in store.log_totals().values()) == sum(row[3] for row in rows)


class TestErrors:
    def test_the_newest_come_first_and_say_what_was_raised(self, store: Store, make: Make) -> None:
        raised = '{"exception.type":"CardDeclined","exception.message":"no funds"}'
        store.write(make.batch(make.log(severity=17, body="one", attributes=raised), make.log(), make.log(severity=13)))
        store.write(make.batch(make.log(severity=21, body="two")))
        errors = store.recent_errors()
        assert [(error.body, error.severity, error.exception) for error in errors] == [
            ("two", "fatal", ""),
            ("one", "error", "CardDeclined: no funds"),
        ]
        assert store.totals().errors == 2

    def test_are_found_by_an_index(self, store: Store) -> None:
        """Among a million records a handful of errors must not need a scan."""
        plan = store.ask(
            lambda db: db.execute(
                "EXPLAIN QUERY PLAN SELECT * FROM logs WHERE severity >= 17 ORDER BY id DESC LIMIT 5"
            ).fetchall()
        )
        assert "logs_of_errors" in str(plan)


def outline(spans: list[Span]) -> list[object]:
    return [(span.name, outline(span.children)) if span.children else span.name for span in spans]


class TestTraces:
    def test_a_trace_is_a_tree_by_start_time(self, store: Store, make: Make) -> None:
        at = make.now_ns
        store.write(
            make.batch(
                make.span(name="late", span_id="c" * 16, parent_id="a" * 16, start_ns=at + 9),
                make.span(name="early", span_id="b" * 16, parent_id="a" * 16, start_ns=at + 1),
                make.span(name="deep", span_id="d" * 16, parent_id="b" * 16, start_ns=at + 2),
            )
        )
        store.write(make.batch(make.span(name="root", span_id="a" * 16)))
        assert outline(store.trace("aa" * 16)) == [("root", [("early", ["deep"]), "late"])]

    def test_a_span_whose_parent_is_not_here_is_a_root(self, store: Store, make: Make) -> None:
        store.write(make.batch(make.span(name="orphan", parent_id="f" * 16)))
        assert outline(store.trace("aa" * 16)) == ["orphan"]

    def test_a_ring_of_parents_is_opened_at_its_earliest_span(self, store: Store, make: Make) -> None:
        """Nonsense from outside must not hang or hide spans."""
        store.write(
            make.batch(
                make.span(name="a", span_id="a" * 16, parent_id="b" * 16, start_ns=1),
                make.span(name="b", span_id="b" * 16, parent_id="a" * 16, start_ns=2),
                make.span(name="self", span_id="c" * 16, parent_id="c" * 16, start_ns=3),
            )
        )
        assert outline(store.trace("aa" * 16)) == [("a", ["b"]), "self"]

    def test_a_span_sent_twice_is_there_once(self, store: Store, make: Make) -> None:
        for _ in range(2):
            store.write(make.batch(make.span()))
        assert len(store.trace("aa" * 16)) == 1

    def test_the_list_tells_root_extent_and_failures(self, store: Store, make: Make) -> None:
        at = make.now_ns
        child = make.span(span_id="b" * 16, parent_id="a" * 16, name="SELECT", status="error", end_ns=at + 5)
        store.write(make.batch(child))
        assert [(trace.name, trace.spans) for trace in store.traces()] == [("", 1)]
        store.write(make.batch(make.span(span_id="a" * 16, start_ns=at - 10, end_ns=at + 10)))
        [trace] = store.traces()
        assert (trace.name, trace.start_ns, trace.duration_ns, trace.spans, trace.errors) == (
            "GET /",
            at - 10,
            20,
            2,
            1,
        )
        assert (store.totals().traces, store.totals().spans, store.totals().failed_spans) == (1, 2, 1)

    def test_records_of_a_trace_come_by_time(self, store: Store, make: Make) -> None:
        store.write(
            make.batch(
                make.log(trace_id="aa" * 16, body="two", time_ns=2), make.log(trace_id="aa" * 16, body="one", time_ns=1)
            )
        )
        store.write(make.batch(make.log(body="elsewhere")))
        assert [record.body for record in store.trace_records("aa" * 16)] == ["one", "two"]
        assert store.trace_records("") == ()
        assert store.trace("") == []


class TestMetrics:
    def test_points_and_names_are_counted(self, store: Store, make: Make) -> None:
        store.write(make.batch(make.point(), make.point(value=2.5), make.point(name="other", value=None)))
        assert (store.totals().points, store.totals().metrics) == (3, 2)
        last = store.ask(lambda db: db.execute("SELECT name, points, last_value FROM metrics ORDER BY name").fetchall())
        assert last == [("orders", 2, 2.5), ("other", 1, None)]
