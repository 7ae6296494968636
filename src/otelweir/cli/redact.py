"""`weir redact`: show what redaction would hide in a file, before it is relied on."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import click

from otelweir.cli.words import printable
from otelweir.pipeline.redact.redactor import Detector, Redactor
from otelweir.pipeline.redact.settings import RedactSettings, plan_of
from otelweir.signals import LANES
from otelweir.variables import read

_SHOWN: Final = 50
_WIDTH: Final = 300
_LONGEST_LINE: Final = 2**20


@click.group("redact", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Show what redaction would hide.

    docs/redaction.md tells what is found. Exit codes: 0 fine, 1 the file or the policy cannot be read, 2 wrong usage.
    """


@command.command(
    epilog="""
\b
Examples:
  weir redact check service.log
  weir redact check service.log --policy policy.yaml --signal traces
  WEIR_REDACT_RULES=default,ipv4 weir redact check service.log --json
  kubectl logs deploy/cart | weir redact check -
"""
)
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--policy", type=click.Path(exists=True, dir_okay=False), help="A policy with a section `redact`.")
@click.option("--signal", type=click.Choice(LANES), default="logs", show_default=True, help="Whose plan applies.")
@click.option("--all", "every", is_flag=True, help=f"Show every line; otherwise the first {_SHOWN}.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
def check(file: str, policy: str | None, signal: str, every: bool, as_json: bool) -> None:
    """Say what would be hidden in each line of a text FILE, by the WEIR_REDACT_* variables of this environment.

    Lines are shown as they would leave. `-` reads standard input.
    """
    settings, _ = read(RedactSettings, os.environ)
    redactor = Redactor(plan_of(settings), _detector(settings))
    if policy is not None:
        redactor.apply(_section(policy))
    scrubber = redactor.of(signal)  # type: ignore[arg-type]
    rules: Counter[str] = Counter()
    lines = touched = 0
    before = f'{{"file": {json.dumps(file)}, "findings": ['
    for number, line in _lines(file):
        lines += 1
        findings = scrubber.findings(line)
        if not findings:
            continue
        touched += 1
        rules.update(rule for _, _, rule in findings)
        if as_json:
            # As they come: there may be more than fit into memory.
            for one, end, rule in findings:
                found = {"line": number, "column": one + 1, "length": end - one, "rule": rule}
                click.echo(before + json.dumps(found), nl=False)
                before = ", "
        elif every or touched <= _SHOWN:
            shown = printable(scrubber.text(line))
            click.echo(f"{number}: {shown if len(shown) <= _WIDTH else f'{shown[:_WIDTH]}…'}")
    if as_json:
        report = json.dumps({"lines": lines, "lines_touched": touched, "rules": dict(rules.most_common())})
        click.echo(f"{'' if touched else before}], {report[1:]}")
        return
    if touched > _SHOWN and not every:
        click.echo(f"… and {touched - _SHOWN:,} more lines; --all shows them")
    if not settings.redact:
        click.echo("Note: WEIR_REDACT=false, so the service hides nothing of this.")
    if not touched:
        click.echo(f"Nothing would be hidden in {lines:,} lines.")
        return
    click.echo(f"\n{sum(rules.values()):,} would be hidden, in {touched:,} of {lines:,} lines:")
    for rule, count in rules.most_common():
        click.echo(f"  {rule:<8} {count:>9,}")


def _detector(settings: RedactSettings) -> Detector | None:
    if settings.redact_detector == "none":
        return None
    from otelweir.pipeline.redact.presidio import PresidioDetector

    return PresidioDetector()


def _section(policy: str) -> dict[str, object] | None:
    from otelweir.distro.policy_sections import admit_sections
    from otelweir.pipeline.sample.logs.policy import parse

    admit_sections()
    try:
        data = Path(policy).read_bytes()
    except OSError as error:
        raise click.ClickException(f"{policy} cannot be read: {error.strerror}") from None
    section: dict[str, object] | None = parse(data, policy).redact
    return section


def _lines(file: str) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers; a line without end is taken in parts."""
    try:
        stream: BinaryIO = sys.stdin.buffer if file == "-" else Path(file).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise click.ClickException(f"{file} cannot be read: {error.strerror}") from None
    with stream:
        number, begins = 0, True
        while line := stream.readline(_LONGEST_LINE):
            number += begins
            begins = line.endswith(b"\n")
            yield number, line.decode("utf-8", "replace").rstrip("\r\n")
