"""`weir doctor`: show the effective configuration and what is wrong with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

import click

from otelweir.cli.words import of_age

if TYPE_CHECKING:
    from otelweir.distro.doctor import Finding, Report, Row


class _Table(NamedTuple):
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    empty: str = "none"


@click.command(
    "doctor",
    epilog="""
\b
Examples:
  weir doctor                                the environment of this shell
  kubectl exec deploy/cart -- weir doctor    that of a service
  docker exec cart weir doctor --no-network  without asking the endpoints
  weir doctor --json | jq .findings          for machines
""",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.option("--no-network", is_flag=True, help="Ask neither the endpoints nor the policy URL.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 60),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for each endpoint.",
)
def command(as_json: bool, no_network: bool, timeout: float) -> None:
    """Show the effective configuration and what is wrong with it.

    Prints every setting with its origin, the OTEL_* variables in force, the policy, what is installed, whether each
    signal's endpoint takes telemetry (it sends each an empty request), and how the service's running processes deliver.
    Secrets are not shown. Exits with 1 when something needs doing, and says what.

    It looks at the environment that it runs in: run it where the service runs, with the service's variables. What a
    service sets in code, with otelweir.configure(), it cannot see.
    """
    from otelweir.distro.doctor import here

    report = here(network=not no_network, timeout_s=timeout)
    if as_json:
        click.echo(json.dumps({"ok": report.ok, **asdict(report)}, indent=2, ensure_ascii=False))
    elif sys.stdout.isatty():
        _draw(report)
    else:
        _print(report)
    if not report.ok:
        sys.exit(1)


def _tables(report: Report) -> Iterator[_Table]:
    yield _Table(
        "Settings of Weir",
        ("variable", "value", "origin"),
        _cells(report.settings),
    )
    yield _Table(
        "Variables of OpenTelemetry in force",
        ("variable", "value", "origin"),
        _cells(report.opentelemetry),
    )
    yield _Table("Policy", ("source", "state", "kind"), _cells(report.policy))
    yield _Table(
        "OpenTelemetry packages",
        ("package", "version", ""),
        [(one.name, one.version, "" if one.supported else "not supported") for one in report.packages],
    )
    yield _Table(
        "Instrumentations",
        ("name", "for", "version", "state"),
        [(one.name, one.library, one.version, one.state) for one in report.instrumentations],
    )
    yield _Table(
        "Installed libraries that could be instrumented",
        ("library", "version", "with"),
        [(one.library, one.version, one.remedy) for one in report.missing_instrumentations],
    )
    yield _Table(
        "Endpoints",
        ("signal", "protocol", "address", "latency", "state"),
        [
            (
                one.signal,
                one.protocol,
                one.url,
                "" if one.latency_ms is None else f"{one.latency_ms:.0f} ms",
                one.state,
            )
            for one in report.endpoints
        ],
    )
    yield _Table("Spool", ("what", "value", "origin"), _cells(report.spool))
    yield _Table(
        "Processes of the service, and what gone ones left",
        ("process", "signal", "delivered", "waiting", "lost", "oldest", "answers in", "endpoint", "state"),
        [
            (
                str(one.pid),
                one.signal,
                "" if one.delivered is None else str(one.delivered),
                str(one.waiting),
                "" if one.delivered is None else str(sum(one.lost.values())),
                "" if one.oldest_age_s is None else of_age(one.oldest_age_s),
                "" if one.response_ms is None else f"{one.response_ms:.0f} ms",
                one.endpoint,
                f"{one.state}, breaker {one.breaker}" if one.breaker not in ("", "closed") else one.state,
            )
            for one in report.deliveries
        ],
    )


def _cells(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    return [(row.name, "unset" if row.value is None else row.value, row.origin) for row in rows]


def _verdict(report: Report) -> str:
    problems = sum(finding.level == "problem" for finding in report.findings)
    if not problems:
        return "Nothing needs doing."
    return f"{problems} problem{'' if problems == 1 else 's'}: see what to do above."


def _print(report: Report) -> None:
    """Lines for pipes and logs."""
    click.echo(f"Weir {report.weir}, Python {report.python}")
    for table in _tables(report):
        click.echo(f"\n{table.title}")
        widths = [max((len(row[column]) for row in table.rows), default=0) for column in range(len(table.head))]
        for row in table.rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            click.echo(f"  {'  '.join(cells)}".rstrip())
        if not table.rows:
            click.echo(f"  {table.empty}")
    click.echo("\nFindings")
    for finding in _ordered(report):
        click.echo(f"  {finding.level}: {_headline(finding)}")
        click.echo(f"    {finding.remedy}")
    if not report.findings:
        click.echo("  none")
    click.echo(f"\n{_verdict(report)}")


def _ordered(report: Report) -> list[Finding]:
    """Problems last: what needs doing stands where the eye rests."""
    return sorted(report.findings, key=lambda finding: finding.level == "problem")


def _headline(finding: Finding) -> str:
    return f"{finding.code}: {finding.what}" if finding.code else finding.what


_COLOURS = {
    "variable": "cyan",
    "policy file": "magenta",
    "policy URL": "magenta",
    "answers": "green",
    "active": "green",
}


def _draw(report: Report) -> None:
    """Tables for a terminal."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(Text.assemble(("Weir ", "bold"), (report.weir, "bold"), f"   Python {report.python}"))
    for table in _tables(report):
        console.print()
        console.print(Text(table.title, "bold"))
        if not table.rows:
            console.print(Text(f"  {table.empty}", "dim"))
            continue
        grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        for column in range(len(table.head)):
            grid.add_column(no_wrap=column == 0, overflow="fold")
        for row in table.rows:
            # What is only a default steps back behind what somebody chose.
            dim = row[-1] == "default" or row[-1].startswith(("idle", "off", "not "))
            last = Text(row[-1], _COLOURS.get(row[-1], "dim" if dim else "red" if table.title == "Endpoints" else ""))
            grid.add_row(*(Text(cell, "dim" if dim else "") for cell in row[:-1]), last)
        console.print(Padding(grid, (0, 0, 0, 2)))
    console.print()
    console.print(Text("Findings", "bold"))
    for finding in _ordered(report):
        mark, colour = ("✗", "red") if finding.level == "problem" else ("•", "yellow")
        grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
        grid.add_row(Text(mark, colour), Text(_headline(finding), "bold" if finding.level == "problem" else ""))
        grid.add_row("", Text(finding.remedy, "dim" if finding.level == "note" else ""))
        console.print(Padding(grid, (0, 0, 0, 2)))
    if not report.findings:
        console.print(Text("  ✓ none", "green"))
    console.print()
    console.print(Text(_verdict(report), "bold green" if report.ok else "bold red"))
