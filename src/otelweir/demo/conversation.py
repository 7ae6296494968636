"""What was found out about the assistant: for a person in a terminal, and for a machine as one object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from otelweir.demo.ask import HELD, QUESTIONS, Answers, cost_of, tokens_of
from otelweir.devserver import Record, Span
from otelweir.devserver.signs import mark
from otelweir.devserver.terminal import clean, milliseconds

REMEDY: Final = "pip install 'otelweir[demo]'"

_INDENT: Final = (0, 2)
_RECORDS: Final = 6
_SHOWN: Final = 12
_ROOM: Final = 60


def parts(answers: Answers | None, missing: str, width: int, encoding: str) -> Iterator[RenderableType]:
    """The end of the demo, after what is said of the logs.

    Args:
        answers: What was found out; None where the assistant was left out.
        missing: The package for want of which it was.
        width: Cells of a line.
        encoding: The output's; signs that it does not have become words.
    """
    if answers is None:
        if missing:
            text = f"Language models are left out: {clean(missing)} is not installed, {REMEDY}"
            yield from (Padding(Text(text, "yellow", overflow="fold"), _INDENT), Text())
        return
    asked = f"  ·  {QUESTIONS} questions, answered by a language model and a tool"
    yield from (_title("The shop's assistant", asked), Text())
    yield from (Padding(_checks(answers, encoding), _INDENT), Text())
    if answers.trace:
        yield _title("One question", "  ·  its tokens and its cost; the root has the sum")
        yield from (Padding(_tree(answers.trace, width - 4), _INDENT), Text())
    if answers.failed:
        yield _title("One error, and its flight recorder", "  ·  held until it came, at weight 0")
        yield from (Padding(_records(answers.records), _INDENT), Text())
    if answers.instead:
        yield _title("One secret that did not leave", f"  ·  {answers.secret[:_SHOWN]}…, in a question")
        yield from (Padding(_instead(answers.instead), _INDENT), Text())


def as_json(answers: Answers) -> dict[str, Any]:
    """The same for machines; costs in US dollars."""
    comparison = answers.comparison
    return {
        "ok": answers.ok,
        "calls": answers.seen.calls,
        "input_tokens": answers.seen.input_tokens,
        "output_tokens": answers.seen.output_tokens,
        "cost": answers.seen.cost,
        "told": {
            "calls": answers.told.calls,
            "input_tokens": answers.told.input_tokens,
            "output_tokens": answers.told.output_tokens,
        },
        "logged": comparison.truth.logged,
        "rolled_up": sum(comparison.received.rolled_up.values()),
        "errors_logged": comparison.truth.errors,
        "errors_received": len(comparison.received.error_ids),
        "trace_id": answers.trace[0].trace_id if answers.trace else None,
        "failed_trace_id": answers.failed[0].trace_id if answers.failed else None,
        "held": [{"severity": one.severity, "body": one.body, "weight": one.weight} for one in answers.held],
        "instead_of_the_secret": [{"place": place, "text": text} for place, text in answers.instead],
        "received_bytes": answers.received_bytes,
    }


def _checks(answers: Answers, encoding: str) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")

    def check(name: str, fine: str, wrong: Sequence[str]) -> None:
        sign = (mark(not wrong, encoding), "bold red" if wrong else "bold green")
        table.add_row(Text.assemble(sign, (f" {name}", "bold")), Text(clean("; ".join(wrong) or fine)))

    seen, comparison = answers.seen, answers.comparison
    check(
        "tokens",
        f"{seen.calls:,} calls, {seen.input_tokens:,} in, {seen.output_tokens:,} out, as the provider counted:"
        f" {dollars(seen.cost)}",
        answers.calls,
    )
    check(
        "logs",
        f"{comparison.truth.logged:,} logged, {comparison.received.sent:,} sent, every error and every count as logged",
        comparison.differences,
    )
    check(
        "flight",
        f"the error brought {len(answers.held)} records that were not kept; no count changed",
        answers.flight,
    )
    check(
        "secret",
        f"logged and asked, and in none of the {answers.received_bytes:,} bytes that left",
        answers.hidden,
    )
    if answers.problems:
        check("demo", "", answers.problems)
    return table


def _tree(spans: Sequence[Span], width: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    # Where there is little room a column goes: a number that is cut would be another one.
    names = ("in", "out", "cost", "took")[: 4 if width >= _ROOM else 3]
    table.add_column("", no_wrap=True, overflow="ellipsis", max_width=max(8, width - (35 if width >= _ROOM else 27)))
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for branch, span in _walk(spans):
        tokens, cost = tokens_of(span), cost_of(span)
        heard, said = (f"{number:,}" for number in tokens) if tokens else ("", "")
        label = Text.assemble((branch, "dim"), clean(span.name))
        cells = (heard, said, "" if cost is None else dollars(cost), milliseconds(span.duration_ns))
        table.add_row(label, *cells[: len(names)])
    return table


def _walk(spans: Sequence[Span], below: str = "", root: bool = True) -> Iterator[tuple[str, Span]]:
    for index, span in enumerate(spans):
        last = index == len(spans) - 1
        yield ("" if root else below + ("└─ " if last else "├─ ")), span
        yield from _walk(span.children, "" if root else below + ("   " if last else "│  "), root=False)


def _records(records: Sequence[Record]) -> Table:
    """The error, and the last of what was held before it."""
    at = next((index for index, record in enumerate(records) if record.severity == "error"), len(records))
    held = [record for record in records[:at] if record.reason == HELD][-_RECORDS:]
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for record in (*held, *records[at : at + 1]):
        style = "bold red" if record.severity == "error" else "dim"
        text = Text(clean(record.body))
        if record.exception:
            text.append(f" ({clean(record.exception)})", "red")
        table.add_row(f"weight {record.weight:g}", Text(record.severity.upper(), style), text)
    return table


def _instead(places: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(style="dim", no_wrap=True, overflow="ellipsis", max_width=28)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    # The log record and the prompt; the rest is the same text again.
    shown = [(place, text) for place, text in places if place == "log record" or "messages" in place]
    for place, text in shown or places:
        line = Text(clean(text))
        line.highlight_regex(r"\[redacted:[a-z0-9]+\]", "bold green")
        table.add_row("prompt" if "messages" in place else clean(place), line)
    return table


def dollars(amount: float) -> str:
    """With as many digits as small amounts need."""
    return f"${amount:.2f}" if amount >= 1 else f"${amount:.6f}"


def _title(title: str, note: str = "") -> Text:
    return Text.assemble((f"  {title}", "bold"), (note, "dim"))
