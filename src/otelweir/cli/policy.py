"""`weir policy`: check a sampling policy, explain what it does to a message, replay a log file under it."""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn

import click

from otelweir import errors
from otelweir.cli.loglines import ERROR, LONGEST_LINE, MESSAGE_KEYS, LogRecord, records
from otelweir.pipeline.sample.logs.rules import ALWAYS_KEPT, OWN_EVENTS, Rule, Rules, matches
from otelweir.pipeline.sample.spans.rules import SpanRule, TraceRules
from otelweir.signals import SEVERITIES, Severity

if TYPE_CHECKING:
    from otelweir.pipeline.sample.logs.policy import Policy
    from otelweir.pipeline.sample.logs.sampler import Rollup
    from otelweir.pipeline.sample.logs.settings import Mode

_CAP: Final = 1_000_000
_OTHER_NAMES: Final = {"warning": "warn", "critical": "fatal", "err": "error"}


def _policy_file(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value == "-":
        raise click.BadParameter("a policy is read from a file, not from standard input")
    if not Path(value).exists():
        raise click.BadParameter(f"{value} does not exist")
    if not Path(value).is_file():
        raise click.BadParameter(f"{value} is not a file")
    return value


def _severity(context: click.Context, parameter: click.Parameter, value: str) -> str:
    name = _OTHER_NAMES.get(value.lower(), value.lower())
    if name not in SEVERITIES:
        raise click.BadParameter(f"{value!r} is not one of {', '.join(SEVERITIES)}")
    return name


_FILE = click.argument("file", callback=_policy_file)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")


@click.group("policy", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Check, explain and replay sampling policies.

    docs/policy.md describes the format. Exit codes: 0 fine, 1 the policy is not valid or cannot be read, 2 wrong usage.
    """


# --- check


@command.command(
    epilog="""
\b
Examples:
  weir policy check policy.yaml
  weir policy check policy.json --json
"""
)
@_FILE
@_JSON
def check(file: str, as_json: bool) -> None:
    """Say what a policy sets, or every problem of it with its line."""
    policy = _parsed_or_told(file, as_json=as_json)
    rules, notes = policy.overlay(Path(file).name).rules, _notes(policy, file)
    if as_json:
        sets = policy.model_dump(exclude_unset=True, mode="json")
        if policy.budget == float("inf"):
            sets["budget"] = "none"  # JSON has no infinity
        _print_json({"file": file, "valid": True, "sets": sets, "notes": notes})
        return
    click.echo(f"{file} is valid.")
    for name, value in _sets(policy):
        click.echo(f"  {name:<9} {value}")
    if rules:
        click.echo(f"  {'rules':<9} {len(rules)}, the most specific first:")
        ordered = sorted(enumerate(rules), key=lambda entry: (entry[1].specificity(), entry[0]), reverse=True)
        _print_table(
            ["", "rule", "for", "rate", "first"],
            [["", rule.name, _conditions(rule), _number(rule.rate), _number(rule.first)] for _, rule in ordered],
            right=("rate", "first"),
        )
    if "traces" in policy.model_fields_set:
        _print_traces(policy.trace_rules(Path(file).name))
    for note in notes:
        click.echo(f"Note: {note}")


def _print_traces(traces: TraceRules) -> None:
    most = "" if traces.per_second is None else f", at most {traces.per_second:g} a second and process"
    click.echo(f"  {'traces':<9} rate {traces.rate:g}{most}; remote {traces.remote}")
    if traces.rules:
        click.echo(f"  {'':<9} {len(traces.rules)} rules, of which the first that fits decides:")
        _print_table(
            ["", "rule", "for", "rate", "per_second"],
            [["", one.name, _span_conditions(one), _number(one.rate), _number(one.per_second)] for one in traces.rules],
            right=("rate", "per_second"),
        )


def _span_conditions(rule: SpanRule) -> str:
    said = [f"span {rule.span}"] if rule.span is not None else []
    said += [f"kind {' or '.join(sorted(rule.kinds))}"] if rule.kinds else []
    said += [f"{name} {value}" for name, value in (rule.attributes or {}).items()]
    return ", ".join(said)


def _sets(policy: Policy) -> Iterator[tuple[str, str]]:
    if policy.sampling:
        yield "sampling", policy.sampling
    if rates := policy.rates.model_dump(exclude_none=True):
        yield "rates", ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
    if policy.first:
        yield "first", f"{policy.first} of each pattern in each window"
    if policy.window:
        yield "window", f"{policy.window:g} s"
    if policy.redact:
        yield "redact", ", ".join(policy.redact)
    if policy.budget:
        yield "budget", "none" if policy.budget == float("inf") else f"{policy.budget:g} records per second and process"


def _notes(policy: Policy, file: str) -> list[str]:
    """What is allowed, but hardly meant."""
    rules = policy.overlay(Path(file).name).rules
    notes = []
    if not policy.model_fields_set - {"version"}:
        notes.append("the policy sets nothing")
    for place, rule in enumerate(rules):
        for later in rules[place + 1 :]:
            same = replace(later, name=rule.name, rate=rule.rate, first=rule.first) == rule
            if same and (rule.rate is None or later.rate is not None) and (rule.first is None or later.first):
                notes.append(f"{rule.name} never decides: {later.name} has the same conditions and comes later")
                break
    return notes


# --- explain


@command.command(
    epilog="""
\b
Examples:
  weir policy explain policy.yaml "GET /health 200"
  weir policy explain policy.yaml "retry 3 of 5" --severity WARN --logger urllib3.connectionpool
  weir policy explain policy.yaml "" --event gen_ai.evaluation.result
"""
)
@_FILE
@click.argument("message")
@click.option("--severity", default="info", show_default=True, callback=_severity, help="Severity of the record.")
@click.option("--logger", default="root", show_default=True, help="Name of its logger.")
@click.option("--event", default=None, help="Its event name, if it is an event.")
@click.option("--pattern", default=None, metavar="ID", help="Its pattern id, if it is not the one of the text.")
@_JSON
def explain(
    file: str, message: str, severity: Severity, logger: str, event: str | None, pattern: str | None, as_json: bool
) -> None:
    """Say what a policy does to a MESSAGE, and why.

    The settings of the environment (WEIR_LOG_RATES, ...) lie below the policy, as they would in a service.
    """
    from otelweir.pipeline.sample.logs.pattern import pattern_of
    from otelweir.pipeline.sample.logs.text import TextPatterns

    rules = _effective(file, as_json=as_json)
    found = pattern_of(event, "event") if event else TextPatterns()(message)
    identity = (pattern or found.id, found.template, severity, logger, event)
    ruling = rules.ruling(*identity)
    reasons = [*_mode_reason(rules), *_reasons(rules, identity, message)]
    fates = [_fate(number, rules.mode, ruling.rate, ruling.first) for number in (1, 11, 1000)]
    if as_json:
        _print_json(
            {
                "pattern": identity[0],
                "template": found.template,
                "severity": severity,
                "logger": logger,
                "event": event,
                "sampling": rules.mode,
                "rate": ruling.rate,
                "first": ruling.first,
                "window_s": rules.window_s,
                "budget_per_s": rules.budget_per_s,
                "rule": ruling.rule,
                "reasons": [{"what": what, "says": says} for what, says in reasons],
                "records": fates,
            }
        )
        return
    _print_table(
        ["", ""],
        [
            ["pattern", identity[0]],
            ["template", found.template],
            ["severity", severity],
            ["logger", logger],
            *([["event", event]] if event else []),
            ["sampling", rules.mode],
            [
                "rate" if rules.mode == "on" else "rate if on",
                f"{ruling.rate:g}, after the first {ruling.first} in {rules.window_s:g} s",
            ],
        ],
        header=False,
    )
    click.echo("\nWhy:")
    _print_table(["", ""], [[what, says] for what, says in reasons], header=False)
    click.echo("\nIn a window:")
    for fate in fates:
        click.echo(f"  record {fate['record']:>4}: {fate['words']}")
    if rules.mode == "on" and rules.budget_per_s is not None and 0 < ruling.rate < 1:
        click.echo(f"  Less is kept while the process exceeds its budget of {rules.budget_per_s:g} records per second.")


Identity = tuple[str, str, Severity, str, str | None]


def _mode_reason(rules: Rules) -> Iterator[tuple[str, str]]:
    if rules.mode == "off":
        yield "sampling", "decides: it is off, so every record is kept; what follows would count if it were on"
    elif rules.mode == "dry-run":
        yield "sampling", "decides: it is a dry run, so every record is kept; what follows is counted only"


def _reasons(rules: Rules, identity: Identity, message: str) -> Iterator[tuple[str, str]]:
    """What has a say, the deciding one first, and why each of the others loses."""
    _, _, severity, _, event = identity
    candidates = rules.candidates(*identity)
    always = None
    if severity in ALWAYS_KEPT:
        always = "error and fatal are always kept"
    elif event is not None and event.startswith(OWN_EVENTS):
        always = "Weir's own events are always kept"
    by_rate = next((rule for rule in candidates if rule.rate is not None and not always), None)
    by_first = next((rule for rule in candidates if rule.first is not None), None)
    if event is not None and by_rate is None:
        always = always or "an event that no rule names is kept"
    if always:
        yield "promise", f"decides the rate: {always}"
    for rule in candidates:
        yield rule.name, _standing(rule, by_rate, by_first, always)
    if not always:
        rate = f"the rate of {severity}, {rules.rates.get(severity, 1.0):g},"
        yield "rates", f"{rate} gives way to a rule" if by_rate else f"{rate} decides: no rule gives one"
    for rule in rules.rules:
        if (why := rule.mismatch(*identity)) is not None:
            if rule.template is not None and why.startswith("its template") and matches(rule.template, message):
                why += (
                    ", though it does match the message: what varies is `<*>` in the template, and rules see only that"
                )
            yield rule.name, f"does not match: {why}"


def _standing(rule: Rule, by_rate: Rule | None, by_first: Rule | None, always: str | None) -> str:
    """What a rule that matches has to say."""
    gives = [what for what, one in (("the rate", by_rate), ("the first records", by_first)) if one is rule]
    if gives:
        return f"decides {' and '.join(gives)}: it is for {_conditions(rule)}"
    if always and rule.rate is not None:
        return "matches, but cannot lower what is always kept"
    winner = by_rate if rule.rate is not None else by_first
    return f"matches, but {winner.name if winner else 'another'} is more specific or comes later"


def _fate(number: int, mode: Mode, rate: float, first: int) -> dict[str, Any]:
    """What happens to the n-th record of a window."""
    if mode == "off":
        return {"record": number, "kept": 1.0, "weight": 1, "words": "kept, weight 1 (sampling is off)"}
    if mode == "dry-run":
        on = _fate(number, "on", rate, first)["words"]
        return {"record": number, "kept": 1.0, "weight": 1, "words": f"kept, weight 1 (dry-run; if on: {on})"}
    if number <= first:
        chance, words = 1.0, f"kept, weight 1 (one of the first {first})" if first > 1 else "kept, weight 1 (the first)"
    elif rate >= 1:
        chance, words = 1.0, "kept, weight 1"
    elif rate <= 0:
        chance, words = 0.0, "not kept, only counted"
    else:
        chance, words = rate, f"kept if it is its turn: one in {1 / rate:.3g}, evenly spread; weight {1 / rate:.4g}"
    return {"record": number, "kept": chance, "weight": 1 / chance if chance else 0, "words": words}


# --- replay


@dataclass(slots=True)
class _Replayed:
    records: int = 0
    lines: int = 0
    not_understood: int = 0
    no_message: int = 0
    kept_if_on: int = 0
    errors: int = 0
    errors_kept_if_on: int = 0
    timed: int = 0
    began: float | None = None
    ended: float | None = None


@command.command(
    epilog="""
\b
Examples:
  weir policy replay policy.yaml app.log
  weir policy replay policy.yaml app.log.gz --top 50
  kubectl logs deploy/shop | weir policy replay policy.yaml - --json
"""
)
@_FILE
@click.argument("logfile", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--top", default=20, show_default=True, type=click.IntRange(1), help="How many patterns to show.")
@_JSON
def replay(file: str, logfile: str, top: int, as_json: bool) -> None:
    """Say what a policy would keep of a log file (`-` for standard input), per pattern.

    Understands the usual forms of log lines, and JSON lines. Time is what the lines say. The records have no calls
    here, so patterns are those of their text: a rule for the pattern id of a live record may find nothing.

    Where `sampling` is off or dry-run, all records are kept; it also says what would be kept if it were on.
    """
    from otelweir.pipeline.sample.logs.sampler import LogSampler

    rules = _effective(file, as_json=as_json)
    now = 0.0
    # The same file gives the same answer.
    would_be = replace(rules, mode="on")  # also of a policy that is off or a dry run
    sampler = LogSampler(would_be, clock=lambda: now, random=Random(0).random, max_patterns=_CAP)  # noqa: S311
    told = _Replayed()
    time = _Timeline(rules.window_s)
    with _opened(logfile) as (stream, size), _progress(size, hidden=as_json) as advance:
        for record in records(_decoded(stream, advance, logfile)):
            now = time.of(record)
            told.records += 1
            told.lines += record.lines
            told.not_understood += not record.understood
            told.no_message += record.no_message
            kept = sampler.text(record.logger, record.severity, record.message, record.event) is not None
            told.kept_if_on += kept
            if record.severity >= ERROR:
                told.errors += 1
                told.errors_kept_if_on += kept
    told.timed, told.began, told.ended = time.timed, time.began, time.ended
    rows = sampler.rollups()
    summary = _summary(file, logfile, rules.mode, told, rows)
    if as_json:
        _print_json({**summary, "patterns": [_row(row, rules.mode) for row in rows[:top]]})
        return
    _print_replay(summary, rows, top, rules)


class _Timeline:
    """A clock that follows the records and never goes back."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._shift = 0.0
        self._now = 0.0
        self.timed = 0
        self.began: float | None = None
        self.ended: float | None = None

    def of(self, record: LogRecord) -> float:
        if record.time is None:
            return self._now
        self.timed += 1
        self.began = record.time if self.began is None else min(self.began, record.time)
        self.ended = record.time if self.ended is None else max(self.ended, record.time)
        time = record.time + self._shift
        if time < self._now - self._window_s:
            # Another file was appended, or the year turned where it is not written: go on from here.
            self._shift += self._now - time
            time = self._now
        self._now = max(self._now, time)
        return self._now


def _summary(file: str, logfile: str, mode: Mode, told: _Replayed, rows: list[Rollup]) -> dict[str, Any]:
    return {
        "policy": file,
        "log": logfile,
        "sampling": mode,
        "lines": told.lines,
        "records": told.records,
        **_kept(mode, told.records, told.kept_if_on),
        "errors": {"logged": told.errors, "kept": told.errors_kept_if_on if mode == "on" else told.errors},
        "not_understood": told.not_understood,
        "no_message": told.no_message,
        "with_time": told.timed,
        "seconds": round(told.ended - told.began, 3) if told.began is not None and told.ended is not None else None,
        "patterns_total": len({row.pattern.id for row in rows}),
    }


def _row(row: Rollup, mode: Mode) -> dict[str, Any]:
    return {
        "pattern": row.pattern.id,
        "template": row.pattern.template,
        "severity": row.severity,
        "logged": row.seen,
        **_kept(mode, row.seen, row.kept),
    }


def _kept(mode: Mode, logged: int, kept_if_on: int) -> dict[str, Any]:
    """What is kept, and what would be if sampling were on."""
    kept = kept_if_on if mode == "on" else logged
    return {
        "kept": kept,
        "saved_share": _saved(logged, kept),
        "kept_if_on": kept_if_on,
        "saved_share_if_on": _saved(logged, kept_if_on),
    }


def _saved(logged: int, kept: int) -> float:
    return round(1 - kept / logged, 6) if logged else 0.0


def _print_replay(summary: dict[str, Any], rows: list[Rollup], top: int, rules: Rules) -> None:
    on = rules.mode == "on"
    kept_column, saved_column = ("kept", "saved") if on else ("kept if on", "saved if on")
    if rows:
        _print_table(
            ["logged", kept_column, saved_column, "severity", "pattern", "template"],
            [
                [
                    f"{row.seen:,}",
                    f"{row.kept:,}",
                    f"{1 - row.kept / row.seen:.1%}",
                    row.severity,
                    row.pattern.id,
                    row.pattern.template,
                ]
                for row in rows[:top]
            ],
            right=("logged", kept_column, saved_column),
        )
    if len(rows) > top:
        click.echo(f"and {len(rows) - top:,} more; --top shows them")
    errors_ = summary["errors"]
    would = f"{summary['kept_if_on']:,} ({summary['saved_share_if_on']:.1%} saved)"
    if on:
        fate = f"{summary['kept']:,} kept, {summary['saved_share']:.1%} saved"
    else:
        fate = f"{'sampling is off' if rules.mode == 'off' else 'dry-run'}: all are kept; on would keep {would}"
    click.echo(
        f"\n{_count(summary['records'], 'record')}{', ' if on else '; '}{fate}; "
        f"{_count(errors_['logged'], 'error')}, {errors_['kept']:,} kept; "
        f"{_count(summary['patterns_total'], 'pattern')}."
    )
    if summary["no_message"]:
        click.echo(
            f"No message key found in {_count(summary['no_message'], 'JSON line')} "
            f"(looked for {', '.join(MESSAGE_KEYS)}); the whole line counts as the message."
        )
    if summary["not_understood"]:
        click.echo(f"Severity not understood: {summary['not_understood']:,}; counted as info.")
    if not summary["records"]:
        return
    if not summary["with_time"]:
        click.echo(
            f"No line has a time that was understood: all count as one window of {rules.window_s:g} s, "
            "so the real share saved may be less."
        )
        if rules.budget_per_s is not None:
            click.echo("Without times the budget cannot be replayed.")
    elif summary["with_time"] < summary["records"]:
        click.echo(f"Time not understood: {summary['records'] - summary['with_time']:,}; as the record before.")


@contextmanager
def _opened(logfile: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """The stream to read lines from, and how many bytes are to come; None when nobody knows."""
    if logfile == "-":
        if sys.stdin is None:
            raise click.ClickException("the standard input is closed")
        yield sys.stdin.buffer, None
        return
    path = Path(logfile)
    try:
        with path.open("rb") as file:
            if path.suffix == ".gz":
                with gzip.open(file) as unpacked:
                    yield unpacked, None  # type: ignore[misc]
            else:
                yield file, path.stat().st_size
    except (OSError, EOFError) as error:
        raise click.ClickException(f"{logfile} cannot be read: {error}") from None


def _decoded(stream: BinaryIO, advance: Callable[[int], None], logfile: str) -> Iterator[str]:
    """The lines as text; of a line that is too long, the beginning."""
    waiting = 0
    encoding = "utf-8-sig"  # a byte order mark may stand before the first line only
    going_on = False
    while line := stream.readline(LONGEST_LINE):
        waiting += len(line)
        if waiting >= 2**20:
            advance(waiting)
            waiting = 0
        if encoding == "utf-8-sig" and line.startswith((b"\xff\xfe", b"\xfe\xff")):
            name = "the standard input" if logfile == "-" else logfile
            raise click.ClickException(f"{name} is UTF-16; save it as UTF-8")
        if not going_on:
            yield line.decode(encoding, "replace")
        encoding = "utf-8"
        going_on = not line.endswith(b"\n")


@contextmanager
def _progress(size: int | None, *, hidden: bool) -> Iterator[Callable[[int], None]]:
    if hidden or not sys.stderr.isatty():
        yield lambda read: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("replay", total=size)
        yield lambda read: progress.advance(task, read)


# --- what they share


def _parsed_or_told(file: str, *, as_json: bool) -> Policy:
    try:
        return _parsed(file)
    except errors.PolicyError as error:
        _tell(error, file, as_json=as_json)


def _tell(error: errors.PolicyError, file: str, *, as_json: bool) -> NoReturn:
    """Say why there is no policy, and leave.

    The remedies of the problems speak of a running service, which has a last good policy; here there is none.
    """
    invalid = error.problem is errors.POLICY_INVALID
    problems = _problems(error, file)
    if as_json:
        # Whether a file is valid that cannot be read, nobody knows.
        valid = False if invalid else None
        _print_json({"file": file, "valid": valid, "code": error.code, "problems": problems})
    elif invalid:
        click.echo(error.detail, err=True)
        count = _count(len(problems), "problem")
        click.echo(f"Error: {file} is not valid: {count} ({error.code}). Correct the above and try again.", err=True)
    else:
        remedy = " Check the path and the permissions." if error.problem is errors.POLICY_UNREADABLE else ""
        click.echo(f"Error: {error.detail.rstrip('.')} ({error.code}).{remedy}", err=True)
    sys.exit(1)


def _problems(error: errors.PolicyError, file: str) -> list[dict[str, Any]]:
    problems = []
    for line in error.detail.splitlines():
        found = re.fullmatch(r"(?::(\d+))?: (.*)", line.removeprefix(file))
        number = int(found[1]) if found and found[1] else None
        problems.append({"line": number, "problem": found[2] if found else line})
    return problems


def _parsed(file: str) -> Policy:
    from otelweir.distro.policy_sections import admit_sections
    from otelweir.pipeline.sample.logs.document import MAX_BYTES
    from otelweir.pipeline.sample.logs.policy import parse

    admit_sections()

    try:
        with Path(file).open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise errors.PolicyError(errors.POLICY_UNREADABLE, f"{file}: {error.strerror}") from None
    return parse(data, file)


def _effective(file: str, *, as_json: bool) -> Rules:
    """The policy of a file over the settings of the environment."""
    from otelweir.settings import load

    overlay = _parsed_or_told(file, as_json=as_json).overlay(Path(file).name)
    # Warnings about the environment belong on stderr, in a line.
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    return overlay.over(Rules.of(load(os.environ).settings))


def _conditions(rule: Rule) -> str:
    told = [
        f"{what} {value}"
        for what, value in (
            ("pattern", rule.pattern),
            ("event", rule.event),
            ("template", rule.template),
            ("logger", rule.logger),
            ("severity", " or ".join(name for name in SEVERITIES if name in rule.severities)),
        )
        if value
    ]
    return ", ".join(told)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _print_json(value: object) -> None:
    # Escaped to ASCII: templates may hold what the terminal's encoding does not.
    click.echo(json.dumps(value, indent=2))


def _print_table(
    columns: list[str], rows: Iterable[list[str]], *, header: bool = True, right: tuple[str, ...] = ()
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=header, pad_edge=False, header_style="bold")
    for name in columns:
        last = name == columns[-1]
        table.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=not last or header,
            overflow="fold" if not header else "ellipsis",
        )
    for row in rows:
        # Text, so that brackets in a template are not markup; line ends would break the row.
        table.add_row(*(Text(_printable(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = 400  # a pipe has no width: cut nothing
    console.print(table)


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
