"""What is shown: true, on one screen, and harmless whatever a sender wrote."""

from __future__ import annotations

from datetime import datetime
from io import BytesIO, StringIO, TextIOWrapper
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from otelweir.devserver import Snapshot, Store
from otelweir.devserver.terminal import PlainLines, View, clean, duration, percent, span_tree, summary

if TYPE_CHECKING:
    from tests.devserver.conftest import Make

NOON = datetime(2030, 1, 1, 12, 0, 0)


def screen(view: object, width: int = 110, height: int = 30) -> str:
    console = Console(file=StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(view)
    output = console.file
    assert isinstance(output, StringIO)
    return output.getvalue()


def view_of(snapshot: Snapshot, url: str = "http://127.0.0.1:4318") -> View:
    return View(snapshot, url, "keeping it until the end", 83.0, "Ctrl-C ends")


class TestTheView:
    def test_before_anything_arrives_it_says_how_to_send(self, store: Store) -> None:
        shown = screen(view_of(store.snapshot()))
        assert "opentelemetry-instrument python app.py" in shown
        assert "OTEL_EXPORTER_OTLP_ENDPOINT" not in shown
        assert "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9 " in screen(
            view_of(store.snapshot(), url="http://127.0.0.1:9")
        )

    def test_an_output_without_signs_gets_others(self, store: Store, make: Make) -> None:
        store.write(make.batch(make.log(weight=3.0), make.rollup(seen=2000, kept=100)))
        file = TextIOWrapper(BytesIO(), "ascii")
        Console(file=file, width=110).print(view_of(store.snapshot()))
        file.seek(0)
        assert "####" in file.read()

    def test_a_warning_stands_below_the_heading(self, store: Store) -> None:
        shown = screen(View(store.snapshot(), "http://127.0.0.1:4318", "", 1.0, warning="Bound to 0.0.0.0"))
        assert "Bound to 0.0.0.0" in shown.splitlines()[1]

    def test_shows_totals_patterns_and_errors(self, store: Store, make: Make) -> None:
        store.write(make.batch(make.log(weight=3.0), make.rollup(seen=2000, kept=100)))
        store.write(
            make.batch(make.log(severity=17, body="payment failed", pattern_id="p2", template="payment failed"))
        )
        store.write(make.batch(make.span(status="error")))
        store.write(make.batch(make.point()))
        lines = [line.split() for line in screen(view_of(store.snapshot())).splitlines()]
        assert "up 1 min 23 s" in " ".join(lines[0])
        assert ["logs", "~2,001", "logged", "2", "received", "99.9%", "saved", "1", "error"] in lines
        assert ["traces", "1", "trace", "1", "span", "1", "failed"] in lines
        assert ["metrics", "1", "metric", "1", "point"] in lines
        assert any(line[:8] == ["INFO", "user", "<*>", "logged", "in", "2,000", "100", "95.0%"] for line in lines)
        assert any(line[:3] == ["ERROR", "payment", "failed"] and line[3:6] == ["~1", "1", "0.0%"] for line in lines)
        assert any(line[1:] == ["shop", "payment", "failed"] for line in lines)

    @pytest.mark.parametrize("height", [12, 24, 60])
    @pytest.mark.parametrize("width", [40, 80, 200])
    def test_fits_the_screen(self, store: Store, make: Make, width: int, height: int) -> None:
        """What runs over the edge would scroll the totals away."""
        long = "x" * 300
        store.write(
            make.batch(
                *(make.log(pattern_id=f"p{n}", template=f"{long} {n}", body=long, severity=17) for n in range(90)),
                make.log(pattern_id=""),
            )
        )
        lines = screen(view_of(store.snapshot(100, 20)), width, height).splitlines()
        assert all(len(line) <= width for line in lines)
        if height >= 24 and width >= 80:
            assert len(lines) <= height

    def test_markup_is_text(self, store: Store, make: Make) -> None:
        store.write(make.batch(make.log(severity=17, body="[bold]loud[/bold]", template="[red]<*>[/oops]")))
        shown = screen(view_of(store.snapshot()))
        assert "[bold]loud[/bold]" in shown
        assert "[red]<*>[/oops]" in shown


class TestPlainLines:
    def test_one_line_of_totals_and_one_for_each_news(self, store: Store, make: Make) -> None:
        lines = PlainLines(store.snapshot())
        store.write(make.batch(make.rollup(seen=2000, kept=100), make.log(severity=17, body="a\nb", pattern_id="")))
        assert list(lines.update(store.snapshot(), NOON)) == [
            "12:00:00 error    shop: a b",
            "12:00:00 pattern  info seen 2,000 kept 100 saved 95.0%  user <*> logged in",
            "12:00:00 totals   logs 2,001 logged, 1 received (>99.9% saved), 1 error | traces 0 traces, 0 spans,"
            " 0 failed | metrics 0 points of 0 metrics",
        ]

    def test_nothing_is_said_twice(self, store: Store, make: Make) -> None:
        lines = PlainLines(store.snapshot())
        store.write(make.batch(make.rollup(), make.log(severity=17)))
        list(lines.update(store.snapshot(), NOON))
        assert len(list(lines.update(store.snapshot(), NOON))) == 1

    def test_what_was_there_before_is_no_news(self, store: Store, make: Make) -> None:
        store.write(make.batch(make.rollup(), make.log(severity=17)))
        assert len(list(PlainLines(store.snapshot()).update(store.snapshot(), NOON))) == 1


class TestTheTree:
    def test_shows_branches_durations_and_failures(self, store: Store, make: Make) -> None:
        at = make.now_ns
        ids = [f"{number:016x}" for number in range(1, 5)]
        store.write(
            make.batch(
                make.span(span_id=ids[0], name="GET /", end_ns=at + 40_000_000),
                make.span(span_id=ids[1], parent_id=ids[0], name="SELECT", kind="client", end_ns=at + 10_000_000),
                make.span(span_id=ids[2], parent_id=ids[1], name="connect", kind="internal", end_ns=at + 5_000_000),
                make.span(
                    span_id=ids[3],
                    parent_id=ids[0],
                    name="charge",
                    kind="internal",
                    status="error",
                    start_ns=at + 20_000_000,
                    end_ns=at + 40_000_000,
                ),
            )
        )
        shown = screen(span_tree(store.trace("aa" * 16), 40), 60).splitlines()
        assert [line.split("  ")[0].rstrip() for line in shown] == [
            "GET / server",
            "├─ SELECT client",
            "│",
            "└─ charge",
        ]
        assert ["✗" in line for line in shown] == [False, False, False, True]
        assert ["40.0 ms" in shown[0], "10.0 ms" in shown[1], "5.0 ms" in shown[2]] == [True] * 3
        assert shown[3].rstrip().endswith("20.0 ms" + "  " + " " * 5 + "━" * 5)

    @pytest.mark.parametrize("width", [40, 60])
    def test_names_give_way_to_marks_and_numbers(self, store: Store, make: Make, width: int) -> None:
        name = "POST /a/rather/long/route/{of}/{a}/{shop}"
        store.write(make.batch(make.span(name=name, status="error", start_ns=0, end_ns=1_234_500_000)))
        (line,) = screen(span_tree(store.trace("aa" * 16), width, "FAILED"), width).splitlines()
        assert "…  FAILED  1,234.5 ms  ━━━━━━━━━━" in line

    def test_a_very_deep_trace_is_drawn(self, store: Store, make: Make) -> None:
        store.write(
            make.batch(
                *(make.span(span_id=f"{n + 1:016x}", parent_id=f"{n:016x}", start_ns=n, end_ns=n) for n in range(2000))
            )
        )
        assert span_tree(store.trace("aa" * 16)).row_count == 2000


class TestWords:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("plain", "plain"),
            ("naïve 名前 🙂", "naïve 名前 🙂"),
            ("two\nlines\tand", "two lines and"),
            ("\x1b[2J\x07", "�[2J�"),
            ("\u202eabc\u2028", "�abc�"),
            ("\ud800", "�"),
            ("x" * 1000, "x" * 500),
        ],
        ids=ascii,
    )
    def test_clean_leaves_nothing_a_terminal_obeys(self, text: str, expected: str) -> None:
        assert clean(text) == expected

    @pytest.mark.parametrize(
        ("share", "expected"), [(0.0, "0.0%"), (0.9512, "95.1%"), (0.99999, ">99.9%"), (1.0, "100%")]
    )
    def test_all_is_said_only_of_all(self, share: float, expected: str) -> None:
        assert percent(share) == expected

    @pytest.mark.parametrize(("seconds", "expected"), [(9.9, "9 s"), (83, "1 min 23 s"), (7500, "2 h 05 min")])
    def test_durations_read_as_spoken(self, seconds: float, expected: str) -> None:
        assert duration(seconds) == expected

    def test_the_summary_is_one_line(self, store: Store, make: Make) -> None:
        store.write(make.batch(make.rollup(seen=10, kept=0), make.log()))
        assert summary(store.totals(), 5.0, "kept in x.db") == (
            "Stopped after 5 s: 10 logged, 1 received (90.0% saved), 0 errors, 0 spans, 0 points; kept in x.db"
        )
