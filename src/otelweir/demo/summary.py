"""What the demo found: for a person in a terminal, and for a machine as one object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from otelweir.demo import conversation
from otelweir.demo.comparison import SEVERITIES, Comparison
from otelweir.demo.run import Report
from otelweir.devserver import Pattern, Record, Span
from otelweir.devserver.signs import Legible, mark
from otelweir.devserver.terminal import clean, percent, span_tree

_STYLES: Final = {"debug": "dim", "info": "cyan", "warn": "yellow", "error": "bold red", "fatal": "bold white on red"}
_MAX_WIDTH: Final = 120
_TOP_PATTERNS: Final = 8
_TRACE_RECORDS: Final = 4
_OWN_LINES: Final = 5
_INDENT: Final = (0, 2)


class Summary:
    """The end of the demo in a terminal of any width.

    Args:
        report: What the demo found.
        db: Where it was kept, if anywhere.
    """

    def __init__(self, report: Report, db: Path | None = None) -> None:
        self.report = report
        self.db = db

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, _MAX_WIDTH)
        parts = self._parts(width, options.encoding)
        yield from console.render(Legible(Group(*parts)), options.update_width(width))

    def _parts(self, width: int, encoding: str) -> Iterator[RenderableType]:
        report, comparison = self.report, self.report.comparison
        yield from (_headline(comparison, width - 4), Text())
        verdict = "Nothing that matters is missing" if report.ok else "Not everything fits"
        yield from (_title(verdict, "  ·  held against the shop's own log file"), Text())
        yield from (_indented(_checks(report, encoding)), Text())
        yield from (_indented(_Severities(comparison)), Text())
        if report.patterns:
            yield _title("Top patterns", f"  ·  of {len(report.patterns)}")
            yield from (_indented(_patterns(report.patterns[:_TOP_PATTERNS])), Text())
        if report.trace:
            yield _title("One trace", f"  ·  of {report.traces:,}: what happened in one request that failed")
            spans, cross = without_messages(report.trace), mark(False, encoding)
            yield from (_indented(span_tree(spans, width - 4, cross)), Text())
            yield from (_indented(_records(report.trace_records)), Text())
        yield from conversation.parts(report.answers, report.missing, width, encoding)
        if not report.ok:
            yield from (_title("What to do"), _indented(_remedy(report)), Text())
        yield from (_title("Where to go next"), _indented(_next(self.db)))


def as_json(report: Report) -> dict[str, Any]:
    """The same for machines. Severities are named as OpenTelemetry does; shares go from 0 to 1."""
    comparison = report.comparison
    truth, received = comparison.truth, comparison.received
    return {
        "ok": report.ok,
        "logged": truth.logged,
        "sent": received.sent,
        "records": sum(received.records.values()),
        "rollups": received.rollups,
        "share_saved": round(comparison.share_saved, 4),
        "errors_logged": truth.errors,
        "errors_received": len(received.error_ids),
        "weight_sum": round(received.weight, 3),
        "weight_deviation": round(comparison.weight_deviation, 5),
        "weight_bound": round(received.weight_bound, 3),
        "severities": {
            severity: {
                "logged": truth.by_severity[severity],
                "rolled_up": received.rolled_up.get(severity, 0),
                "weight_sum": round(received.weights.get(severity, 0.0), 3),
                "records": received.records.get(severity, 0),
            }
            for severity in SEVERITIES
        },
        "patterns": [
            {
                "id": pattern.pattern_id,
                "severity": pattern.severity,
                "logger": pattern.logger,
                "template": pattern.template,
                "seen": pattern.seen,
                "kept": pattern.kept,
                "share_saved": round(pattern.saved, 4),
            }
            for pattern in report.patterns
        ],
        "trace_id": report.trace[0].trace_id if report.trace else None,
        "traces": report.traces,
        "spans": report.spans,
        "requests": report.load.answered,
        "unanswered": report.load.unanswered,
        "seconds": round(report.load.seconds, 3),
        "total_seconds": round(report.total_s, 3),
        "differences": [
            *comparison.differences,
            *report.problems,
            *(f"assistant: {one}" for one in (report.answers.differences if report.answers else ())),
        ],
        "warnings": truth.own,
        "kept_in": str(report.kept_in) if report.kept_in else None,
        "assistant": conversation.as_json(report.answers) if report.answers else None,
        "assistant_needs": report.missing or None,
    }


def without_messages(spans: Sequence[Span]) -> list[Span]:
    """The tree without the spans that upstream makes for single ASGI messages: each request has several."""
    return [
        replace(span, children=without_messages(span.children))
        for span in spans
        if span.children or "asgi.event.type" not in span.attributes
    ]


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _headline(comparison: Comparison, width: int) -> RenderableType:
    truth, received = comparison.truth, comparison.received
    words = Text.assemble(
        (f"{truth.logged:,}", "bold"),
        " log records written, ",
        (f"{received.sent:,}", "bold"),
        " sent: ",
        (f"{percent(comparison.share_saved)} saved", "bold green"),
    )
    cells = min(width, max(1, round(width * (1 - comparison.share_saved))))
    return _indented(Group(words, Text.assemble(("█" * cells, "green"), ("░" * (width - cells), "bright_black"))))


def _checks(report: Report, encoding: str) -> Table:
    comparison = report.comparison
    truth, received = comparison.truth, comparison.received
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")

    def check(name: str, fine: str, wrong: Sequence[str]) -> None:
        sign = (mark(not wrong, encoding), "bold red" if wrong else "bold green")
        table.add_row(Text.assemble(sign, (f" {name}", "bold")), Text(clean("; ".join(wrong) or fine)))

    check(
        "errors",
        f"{truth.errors:,} logged, {len(received.error_ids):,} received: every one of them, once",
        comparison.errors,
    )
    check(
        "counts",
        f"{received.rollups:,} roll-ups say {sum(received.rolled_up.values()):,}: exactly what was logged",
        comparison.counts,
    )
    check(
        "weights",
        f"what was sent stands for {received.weight:,.0f}, an estimate: {abs(comparison.weight_deviation):.1%} off",
        comparison.weights,
    )
    if report.problems:
        check("demo", "", report.problems)
    return table


class _Severities:
    """The table of severities, as wide as there is room: it gives up air, then columns, and never digits."""

    _FORMS: Final = (
        (3, ()),
        (2, ()),
        (3, ("by weights",)),
        (1, ("by weights",)),
        (1, ("by weights", "by roll-ups")),
    )

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # Measured where it has room: elsewhere a table is as wide as what there is.
        ample = options.update_width(10 * _MAX_WIDTH)
        forms = [_severities(self._comparison, air, without) for air, without in self._FORMS]
        fitting = (form for form in forms if console.measure(form, options=ample).maximum <= options.max_width)
        yield next(fitting, forms[-1])


def _severities(comparison: Comparison, air: int, without: Sequence[str]) -> Table:
    truth, received = comparison.truth, comparison.received
    table = Table(box=None, padding=(0, air, 0, 0), pad_edge=False, header_style="dim", show_footer=True)
    table.add_column("", Text("all"), no_wrap=True)
    totals = {
        "logged": f"{truth.logged:,}",
        "by roll-ups": f"{sum(received.rolled_up.values()):,}",
        "by weights": f"{received.weight:,.0f}",
        "sent": f"{received.sent:,}",
        "saved": percent(comparison.share_saved),
    }
    shown = [name for name in totals if name not in without]
    for name in shown:
        style = "bold green" if name == "saved" else "bold"
        table.add_column(name, Text(totals[name], style), justify="right", no_wrap=True)
    for severity in SEVERITIES:
        logged, told = truth.by_severity[severity], received.rolled_up.get(severity, 0)
        sent = received.records.get(severity, 0)
        if not (logged or told or sent):
            continue
        cells = {
            "logged": Text(f"{logged:,}"),
            "by roll-ups": Text(f"{told:,}", "" if told == logged else "bold red"),
            "by weights": Text(f"{received.weights.get(severity, 0.0):,.0f}"),
            "sent": Text(f"{sent:,}"),
            "saved": _saved(max(0.0, 1 - sent / logged) if logged else 0.0),
        }
        table.add_row(Text(severity.upper(), _STYLES[severity]), *(cells[name] for name in shown))
    rollups = {"sent": f"{received.rollups:,}"}
    table.add_row(Text("roll-ups", "dim"), *(rollups.get(name, "") for name in shown))
    return table


def _patterns(patterns: Sequence[Pattern]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), expand=True, pad_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
    for name in ("seen", "kept", "saved"):
        table.add_column(name, justify="right", no_wrap=True)
    for pattern in patterns:
        template = Text(no_wrap=True, overflow="ellipsis")
        for index, part in enumerate(clean(pattern.template or pattern.pattern_id).split("<*>")):
            if index:
                template.append("<*>", "magenta")
            template.append(part)
        table.add_row(
            Text(pattern.severity.upper(), _STYLES.get(pattern.severity, "")),
            template,
            f"{pattern.seen:,}",
            f"{pattern.kept:,}",
            _saved(pattern.saved),
        )
    return table


def _records(records: Sequence[Record]) -> Table:
    """The records of a trace, the worst ones if there are many."""
    worst = sorted(records, key=lambda record: -SEVERITIES.index(record.severity) if record.severity in _STYLES else 0)
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for record in sorted(worst[:_TRACE_RECORDS], key=lambda record: record.time_ns):
        text = Text(clean(record.body))
        if record.exception:
            text.append(f" ({clean(record.exception)})", "red")
        table.add_row(Text(record.severity.upper(), _STYLES.get(record.severity, "")), text)
    return table


def _remedy(report: Report) -> Group:
    lines = [Text(clean(line), "yellow", overflow="fold") for line in report.comparison.truth.own[:_OWN_LINES]]
    lines.append(Text("On a machine that is very busy, run it once more; if it stays so, please report it."))
    if report.kept_in:
        lines.append(Text(f"What the shop printed and logged is in {report.kept_in}", overflow="fold"))
    return Group(*lines)


def _next(db: Path | None) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_column(style="bold cyan", no_wrap=True)
    table.add_column()
    again = f"weir dev --db {db}"
    table.add_row("weir dev", "watch what your own services send")
    table.add_row("opentelemetry-instrument python app.py", "launch yours, its code unchanged")
    table.add_row(*((again, "look at this run again") if db else ("weir policy --help", "choose what is kept")))
    return table


def _saved(share: float) -> Text:
    return Text(percent(share), "green" if share >= 0.0005 else "dim")


def _title(title: str, note: str = "") -> Text:
    return Text.assemble((f"  {title}", "bold"), (note, "dim"))


def _indented(part: RenderableType) -> Padding:
    return Padding(part, _INDENT)
