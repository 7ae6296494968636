"""What the local backend shows in a terminal: a view that is drawn anew, or lines for a pipe.

Everything that senders wrote passes `clean` first: telemetry must not be able to move the cursor or forge a line.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from datetime import datetime

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from otelweir.devserver.signs import Legible
from otelweir.devserver.views import Pattern, Record, Snapshot, Span, Totals

_STYLES = {
    "unset": "dim",
    "trace": "dim",
    "debug": "dim",
    "info": "cyan",
    "warn": "yellow",
    "error": "bold red",
    "fatal": "bold white on red",
}
_BAR_CELLS = 20
_BAR_FROM_WIDTH = 100
_EIGHTHS = " ▏▎▍▌▋▊▉█"
# Lines around the tables: heading, totals, titles, rules, the hint at the end.
_FRAME_LINES = 14
_MAX_ERRORS = 6
_MAX_TEXT = 500


class View:
    """The terminal view of one snapshot, fitted to the height of the console.

    Args:
        snapshot: What arrived.
        url: Where exporters send to.
        keeps: Where it is kept, in words.
        up_s: Seconds since the start.
        hint: What the user can do, at the end; nothing in the last view.
        warning: What the user should know before anything else.
    """

    def __init__(
        self, snapshot: Snapshot, url: str, keeps: str, up_s: float, hint: str = "", warning: str = ""
    ) -> None:
        self.snapshot = snapshot
        self.url = url
        self.keeps = keeps
        self.up_s = up_s
        self.hint = hint
        self.warning = warning

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        totals = self.snapshot.totals
        width = options.max_width
        room = max(6, (options.height or console.size.height) - _FRAME_LINES - bool(self.warning))
        errors = self.snapshot.errors[: min(_MAX_ERRORS, room // 3)]
        patterns = self.snapshot.patterns[: room - len(errors) - (1 if errors else 0)]
        parts: list[Text | Table | Padding | Rule] = [self._heading(), Text()]
        if self.warning:
            parts[1:1] = [Padding(Text(clean(self.warning), "yellow"), (0, 2))]
        if not any(intake.requests for intake in totals.intake.values()):
            parts.append(Padding(_waiting(self.url), (0, 2)))
        else:
            parts.append(Padding(_totals_table(totals), (0, 2)))
            parts += [Text(), _title("Patterns by volume", _more(totals.patterns - len(patterns)))]
            if patterns:
                parts.append(Padding(_patterns_table(patterns, width), (0, 2)))
            if totals.unpatterned:
                parts.append(
                    Text(f"  {_plural(totals.unpatterned, 'record')} without a pattern: not sampled by Weir", "dim")
                )
            if errors:
                parts += [Text(), _title("Recent errors", _more(totals.errors - len(errors)))]
                parts.append(Padding(_errors_table(errors), (0, 2)))
        parts.append(Text())
        if self.hint:
            parts.append(Text(f"  {self.hint}", "dim"))
        yield Legible(Group(*parts))

    def _heading(self) -> Text:
        return Text.assemble(
            ("  weir dev", "bold"),
            ("  ·  ", "dim"),
            (self.url, "bold green"),
            (f"  ·  up {duration(self.up_s)}  ·  {clean(self.keeps)}", "dim"),
            no_wrap=True,
            overflow="ellipsis",
        )


class PlainLines:
    """Lines for a pipe: one of totals for each update, before it one for each new error and newly counted pattern.

    Args:
        before: What is not news.

    Attributes:
        limit: At most so many lines of each kind in one update.
    """

    limit = 10

    def __init__(self, before: Snapshot) -> None:
        self._last_error = max((error.id for error in before.errors), default=0)
        self._rolled_up = {pattern.pattern_id: pattern.rolled_up for pattern in before.patterns}

    def update(self, snapshot: Snapshot, now: datetime) -> Iterator[str]:
        at = now.strftime("%H:%M:%S")
        for error in reversed(snapshot.errors[: self.limit]):
            if error.id > self._last_error:
                self._last_error = error.id
                yield f"{at} error    {clean(error.service)}: {_error_text(error)}"
        for pattern in snapshot.patterns[: self.limit]:
            # When first seen, then with each roll-up; a line for each record would be the flood again.
            if self._rolled_up.get(pattern.pattern_id) != pattern.rolled_up:
                self._rolled_up[pattern.pattern_id] = pattern.rolled_up
                yield (
                    f"{at} pattern  {pattern.severity} seen {_count(pattern.seen, pattern.estimated)}"
                    f" kept {pattern.kept:,} saved {percent(pattern.saved)}  {clean(pattern.template)}"
                )
        yield f"{at} totals   {totals_line(snapshot.totals)}"


def totals_line(totals: Totals) -> str:
    """Everything in one line."""
    parts = [
        f"logs {_count(totals.logged, totals.estimated)} logged, {totals.received:,} received"
        f" ({percent(totals.saved)} saved), {_plural(totals.errors, 'error')}",
        f"traces {_plural(totals.traces, 'trace')}, {_plural(totals.spans, 'span')}, {totals.failed_spans:,} failed",
        f"metrics {_plural(totals.points, 'point')} of {_plural(totals.metrics, 'metric')}",
    ]
    return " | ".join(parts)


def span_tree(spans: list[Span], width: int = 100, cross: str = "✗") -> Table:
    """Spans as a tree with durations, and where in the whole each one lies; a cross marks what failed."""
    table = Table.grid(padding=(0, 2))
    rows = list(_walk(spans))
    cells = max(10, width // 4)
    marks = len(cross) if any(span.status == "error" for _, span in rows) else 0
    figures = max((len(milliseconds(span.duration_ns)) for _, span in rows), default=0)
    # Where there is little room the names give way: a number that is cut would be another one.
    room = width - marks - figures - cells - 6
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(6, room))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    start_ns = min((span.start_ns for _, span in rows), default=0)
    whole_ns = max((span.start_ns + span.duration_ns for _, span in rows), default=0) - start_ns
    services = {span.service for _, span in rows}
    for branch, span in rows:
        failed = span.status == "error"
        name = Text.assemble((branch, "dim"), (clean(span.name), "red" if failed else ""))
        if span.kind in ("server", "client", "producer", "consumer"):
            name.append(f" {span.kind}", "dim")
        if len(services) > 1:
            name.append(f" {clean(span.service)}", "cyan")
        lies = _extent(span.start_ns - start_ns, span.duration_ns, whole_ns, cells)
        sign = Text(cross if failed else "", "bold red")
        table.add_row(name, sign, milliseconds(span.duration_ns), Text(lies, "red" if failed else "green"))
    return table


def summary(totals: Totals, up_s: float, keeps: str) -> str:
    """The last line of a session."""
    return (
        f"Stopped after {duration(up_s)}: {_count(totals.logged, totals.estimated)} logged,"
        f" {totals.received:,} received ({percent(totals.saved)} saved), {_plural(totals.errors, 'error')},"
        f" {_plural(totals.spans, 'span')}, {_plural(totals.points, 'point')}; {keeps}"
    )


def clean(text: str) -> str:
    """The text on one line, without anything a terminal would obey: control characters and changes of direction."""
    text = text[:_MAX_TEXT]
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def percent(share: float) -> str:
    """With one decimal; 100 % only where it is all."""
    shown = f"{share:.1%}"
    return (">99.9%" if shown == "100.0%" else shown) if share < 1 else "100%"


def duration(seconds: float) -> str:
    """Such as `9 s`, `1 min 23 s`, `2 h 05 min`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def milliseconds(duration_ns: int) -> str:
    return f"{duration_ns / 1e6:,.1f} ms"


# ── parts of the view ────────────────────────────────────────────────────────────────────────────────────────────────


def _title(title: str, note: str) -> Text:
    return Text.assemble((f"  {title}", "bold"), (note, "dim"))


def _more(hidden: int) -> str:
    return f"  ·  {hidden:,} more" if hidden > 0 else ""


def _waiting(url: str) -> Group:
    endpoint = "" if url.endswith(":4318") else f"OTEL_EXPORTER_OTLP_ENDPOINT={url} "
    return Group(
        Text("Nothing has arrived yet. Start a service in another terminal, for example:"),
        Text(),
        Text(f"  {endpoint}opentelemetry-instrument python app.py", "bold", overflow="fold"),
    )


def _totals_table(totals: Totals) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_column(style="bold")
    for _ in range(4):
        table.add_column(no_wrap=True)
    table.add_row(
        "logs",
        _number(totals.logged, "logged", totals.estimated),
        _number(totals.received, "received"),
        Text.assemble((percent(totals.saved), "bold green"), " saved"),
        _number(totals.errors, "error" if totals.errors == 1 else "errors", style="bold red" if totals.errors else ""),
    )
    table.add_row(
        "traces",
        _number(totals.traces, "trace" if totals.traces == 1 else "traces"),
        _number(totals.spans, "span" if totals.spans == 1 else "spans"),
        "",
        _number(totals.failed_spans, "failed", style="bold red" if totals.failed_spans else ""),
    )
    table.add_row(
        "metrics",
        _number(totals.metrics, "metric" if totals.metrics == 1 else "metrics"),
        _number(totals.points, "point" if totals.points == 1 else "points"),
    )
    return table


def _patterns_table(patterns: tuple[Pattern, ...], width: int) -> Table:
    bars = width >= _BAR_FROM_WIDTH
    table = Table(box=None, padding=(0, 2, 0, 0), expand=True, header_style="dim", pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("pattern", no_wrap=True, overflow="ellipsis", ratio=1)
    for name in ("seen", "kept", "saved"):
        table.add_column(name, justify="right", no_wrap=True)
    if bars:
        table.add_column("", no_wrap=True, width=_BAR_CELLS)
    most = max(pattern.seen for pattern in patterns)
    for pattern in patterns:
        cells: list[Text | str] = [
            Text(pattern.severity.upper(), _STYLES[pattern.severity]),
            _template(pattern),
            _count(pattern.seen, pattern.estimated),
            f"{pattern.kept:,}",
            Text(percent(pattern.saved), "green" if pattern.saved >= 0.0005 else "dim"),
        ]
        table.add_row(*cells, *([_bar(pattern, most)] if bars else []))
    return table


def _errors_table(errors: tuple[Record, ...]) -> Table:
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(style="cyan", no_wrap=True, max_width=24, overflow="ellipsis")
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for error in errors:
        table.add_row(clock(error.time_ns), Text(clean(error.service)), Text(_error_text(error), "red"))
    return table


def _template(pattern: Pattern) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    for index, part in enumerate(clean(pattern.template or pattern.pattern_id).split("<*>")):
        if index:
            text.append("<*>", "magenta")
        text.append(part)
    if pattern.is_new:
        text.append(" new", "bold green")
    return text


def _bar(pattern: Pattern, most: int) -> Text:
    """The pattern's volume next to the largest one's; what is kept of it stands out."""
    whole = pattern.seen / most * _BAR_CELLS if most else 0.0
    kept = _blocks(min(whole, pattern.kept / most * _BAR_CELLS if most else 0.0))
    return Text.assemble((kept, "green"), (_blocks(whole - len(kept)), "bright_black"))


def _blocks(cells: float) -> str:
    if cells <= 0:
        return ""
    whole, eighths = divmod(max(1, round(cells * 8)), 8)
    return "█" * whole + (_EIGHTHS[eighths] if eighths else "")


def _error_text(error: Record) -> str:
    body = clean(error.body or error.event or "(no message)")
    exception = clean(error.exception)
    return f"{body} ({exception})" if exception and exception not in body else body


def _number(value: int, unit: str, estimated: bool = False, style: str = "") -> Text:
    return Text.assemble((_count(value, estimated), style or "bold"), f" {unit}")


def _count(value: int, estimated: bool) -> str:
    return f"~{value:,}" if estimated else f"{value:,}"


def _plural(value: int, unit: str) -> str:
    return f"{value:,} {unit}" if value == 1 else f"{value:,} {unit}s"


def clock(time_ns: int) -> str:
    """The local time of day; dashes where the time is none."""
    try:
        return datetime.fromtimestamp(time_ns / 1e9).astimezone().strftime("%H:%M:%S") if time_ns else "--:--:--"
    except (OverflowError, ValueError, OSError):
        return "--:--:--"


def _visible(character: str) -> str:
    if character in "\n\r\t":
        return " "
    # Control, format (such as direction overrides), surrogate, private, unassigned, line and paragraph separators.
    return "�" if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") else character


def _walk(spans: list[Span]) -> Iterator[tuple[str, Span]]:
    # A stack of its own: a trace may be deeper than Python's.
    todo = [("", "", span) for span in reversed(spans)]
    while todo:
        branch, below, span = todo.pop()
        yield branch, span
        last = len(span.children) - 1
        todo.extend(
            (below + ("└─ " if index == last else "├─ "), below + ("   " if index == last else "│  "), child)
            for index, child in reversed(list(enumerate(span.children)))
        )


def _extent(start_ns: int, duration_ns: int, whole_ns: int, cells: int) -> str:
    if whole_ns <= 0:
        return ""
    begin = min(cells - 1, start_ns * cells // whole_ns)
    length = max(1, min(cells - begin, round(duration_ns * cells / whole_ns)))
    return " " * begin + "━" * length
