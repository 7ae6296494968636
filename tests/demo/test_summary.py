"""The summary: what a newcomer reads, and what a machine reads."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from rich.console import Console

from otelweir.demo.comparison import Received, Truth, compare
from otelweir.demo.load import Load
from otelweir.demo.progress import Progress
from otelweir.demo.run import Moment, Report
from otelweir.demo.summary import Summary, as_json, without_messages
from otelweir.devserver import Pattern, Record, Span


def a_span(name: str, span_id: str, parent: str = "", **more: object) -> Span:
    return Span("t1", span_id, parent, name, "internal", 0, 10_000_000, "unset", "", "shop", "s", dict(more), [])


def a_pattern(template: str) -> Pattern:
    return Pattern("p1", template, "info", "shop", ("shop",), 110, 495.0, 500, 110, 500, False, True, 0, 1)


def a_record(severity: str, body: str, time_ns: int) -> Record:
    attributes = {"exception.type": "shop.Declined", "exception.message": "no money"} if severity == "error" else {}
    return Record(1, time_ns, severity, body, "", "shop", "shop", "t1", "s1", "p1", body, 1.0, "error", attributes)


@pytest.fixture
def report() -> Report:
    truth = Truth(Counter(info=500, error=2), ["e1", "e2"])
    received = Received(
        {"info": 110, "error": 2}, {"info": 500, "error": 2}, {}, {"info": 495.0, "error": 2.0}, 2, ["e1", "e2"], 10.0
    )
    root = a_span("POST /checkout", "s1")
    root.children = [a_span("charge card", "s2", "s1"), a_span("http send", "s3", "s1", **{"asgi.event.type": "x"})]
    records = (a_record("info", "checkout of cart 7", 1), a_record("error", "payment failed", 2))
    return Report(
        compare(truth, received), Load(Counter({200: 30, 402: 2})), (a_pattern("added <*> to cart"),), [root], records,
        traces=32, spans=120, total_s=11.5,
    )  # fmt: skip


def shown(renderable: object, width: int) -> str:
    console = Console(width=width, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(renderable)
    return console.export_text()


def in_ascii(renderable: object) -> str:
    file = TextIOWrapper(BytesIO(), "ascii", errors="replace")
    Console(width=80, file=file).print(renderable)
    file.seek(0)
    return file.read()


class TestForAPerson:
    @pytest.mark.parametrize("width", [80, 120])
    def test_says_what_was_logged_sent_and_saved(self, report: Report, width: int) -> None:
        text = shown(Summary(report), width)
        assert "502 log records written, 114 sent: 77.3% saved" in text
        assert "✓ errors   2 logged, 2 received" in text
        assert "✓ counts   2 roll-ups say 502" in text
        assert "✓ weights  what was sent stands for 497, an estimate: 1.0% off" in text
        assert "Nothing that matters is missing" in text
        assert "added <*> to cart" in text
        assert "POST /checkout" in text
        assert "payment failed (shop.Declined: no money)" in text
        assert "opentelemetry-instrument python app.py" in text
        assert "✗" not in text

    @pytest.mark.parametrize("width", [40, 60, 80, 120, 300])
    def test_fits(self, report: Report, width: int) -> None:
        assert max(map(len, shown(Summary(report), width).splitlines())) <= min(width, 120)

    @pytest.mark.parametrize("width", [40, 50, 60, 80])
    def test_no_number_of_the_severities_is_cut(self, report: Report, width: int) -> None:
        truth = Truth(Counter(info=1_234_500, error=1_000), [])
        received = replace(report.comparison.received, records={"info": 110_000}, rolled_up={"info": 1_234_500})
        text = shown(Summary(replace(report, comparison=compare(truth, received))), width)
        table = text[text.index("logged", text.index("weights")) :].partition("Top patterns")[0]
        assert "1,234,500" in table
        assert "110,000" in table
        assert "…" not in table

    def test_an_output_without_signs_gets_words(self, report: Report) -> None:
        """A pass and a failure must never come out as the same question mark."""
        comparison = report.comparison
        lost = compare(comparison.truth, replace(comparison.received, error_ids=["e1"]))
        report.trace[0] = replace(report.trace[0], status="error")
        text = in_ascii(Summary(replace(report, comparison=lost)))
        assert "FAILED errors" in text
        assert "ok counts" in text
        assert "#####" in text
        assert "`- charge card" in text
        assert re.search(r"POST /checkout +FAILED +10\.0 ms", text)
        assert "?" not in text

    def test_a_difference_stands_out_and_says_what_to_do(self, report: Report) -> None:
        comparison = report.comparison
        comparison.truth.own.append("WARNING opentelemetry.sdk: Queue full, dropping logs")
        lost = compare(comparison.truth, replace(comparison.received, error_ids=["e1"]))
        text = shown(Summary(replace(report, comparison=lost, kept_in=Path("/tmp/kept"))), 80)
        assert "Not everything fits" in text
        assert "✗ errors   1 error did not arrive: e2" in text
        assert "✓ counts" in text
        assert "Queue full, dropping logs" in text
        assert "/tmp/kept" in text

    def test_what_senders_wrote_cannot_steer_the_terminal(self, report: Report) -> None:
        evil = replace(report, patterns=(a_pattern("\x1b[2Jgone [bold]x[/bold]"),))
        text = shown(Summary(evil), 120)
        assert "\x1b[2J" not in text
        assert "[bold]x[/bold]" in text

    def test_a_kept_database_is_where_to_go_next(self, report: Report) -> None:
        assert "weir dev --db demo.sqlite3" in shown(Summary(report, Path("demo.sqlite3")), 80)

    def test_a_run_without_anything_can_be_shown(self, report: Report) -> None:
        nothing = compare(Truth(), Received({}, {}, {}, {}, 0, [], 0.0))
        empty = Report(nothing, Load(), (), [], (), 0, 0, 1.0, ("the service answered no request",))
        assert "the service answered no request" in shown(Summary(empty), 80)

    def test_spans_of_single_messages_are_left_out(self, report: Report) -> None:
        (root,) = without_messages(report.trace)
        assert [span.name for span in root.children] == ["charge card"]
        assert len(report.trace[0].children) == 2, "the report itself stays as it is"


class TestForAMachine:
    def test_is_one_object_with_everything(self, report: Report) -> None:
        found = json.loads(json.dumps(as_json(report)))
        assert found["ok"] is True
        assert (found["logged"], found["sent"], found["records"], found["rollups"]) == (502, 114, 112, 2)
        assert (found["errors_logged"], found["errors_received"]) == (2, 2)
        assert found["weight_sum"] == 497.0
        assert found["share_saved"] == pytest.approx(1 - 114 / 502, abs=1e-4)
        assert found["severities"]["info"] == {"logged": 500, "rolled_up": 500, "weight_sum": 495.0, "records": 110}
        assert found["trace_id"] == "t1"
        assert found["differences"] == []

    def test_a_difference_is_not_ok(self, report: Report) -> None:
        comparison = report.comparison
        lost = compare(comparison.truth, replace(comparison.received, rolled_up={"info": 499, "error": 2}))
        found = as_json(replace(report, comparison=lost))
        assert found["ok"] is False
        assert found["differences"] == ["INFO: 500 logged, but roll-ups count 499"]

    def test_a_problem_is_not_ok(self, report: Report) -> None:
        found = as_json(replace(report, problems=("the service did not end well when it was asked to",)))
        assert (found["ok"], len(found["differences"])) == (False, 1)


class TestProgress:
    def test_a_stage_that_is_left_out_is_not_shown(self) -> None:
        console = Console(record=True, force_terminal=True, width=80, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
        with Progress(console, 8, ["assistant"]) as progress:
            progress.tell(Moment("done"))
        text = console.export_text()
        assert "compared" in text
        assert "language model" not in text

    def test_off_a_terminal_each_stage_is_a_line(self) -> None:
        console = Console(record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
        with Progress(console, 8) as progress:
            for stage in ("backend", "customers", "customers", "stop", "done"):
                progress.tell(Moment(stage))
        assert len(console.export_text().splitlines()) == 3

    @pytest.mark.parametrize("ended", [False, True])
    def test_an_output_without_signs_gets_words(self, ended: bool) -> None:
        file = TextIOWrapper(BytesIO(), "ascii", errors="replace")
        console = Console(force_terminal=True, width=80, file=file, _environ={"TERM": "xterm"})
        progress = Progress(console, 8)
        with progress:
            progress.tell(Moment("customers" if ended else "done", "http://127.0.0.1:1", 4.0, 100, 1200, 90))
        file.seek(0)
        shown = file.read()
        assert "ok" in shown
        assert ("FAILED" in shown) is ended
        assert "?" not in shown.replace("\x1b[?25l", "").replace("\x1b[?25h", "")

    @pytest.mark.parametrize("width", [40, 80, 120])
    def test_on_a_terminal_it_shows_how_far_it_is(self, width: int) -> None:
        file = open("/dev/null", "w")  # noqa: SIM115, PTH123
        console = Console(record=True, force_terminal=True, width=width, file=file)
        with Progress(console, 8) as progress:
            progress.tell(Moment("customers", "http://127.0.0.1:1", 4.0, 100, 1200, 90))
        text = console.export_text()
        assert "4 of 8 s" in text
        assert max(map(len, text.splitlines())) <= width
        if width >= 80:
            assert "100 requests  1,200 records logged  90 arrived" in text
