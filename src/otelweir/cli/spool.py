"""`weir spool`: what waits on disk, whether it is whole, what it says, and how it leaves without its service."""

from __future__ import annotations

import json
import os
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from otelweir.cli import drain
from otelweir.cli.where import FOLDER, Where, where_is
from otelweir.cli.words import of_age, of_bytes, of_records, printable
from otelweir.pipeline.spool.inspect import (
    Cache,
    Contents,
    Process,
    Record,
    Service,
    look,
    records,
)
from otelweir.pipeline.spool.segment import WAITING
from otelweir.selfmetrics.status import Status, read_status
from otelweir.settings import load
from otelweir.signals import LANES, Lane

if TYPE_CHECKING:
    from rich.console import RenderableType

_REFRESH_S: Final = 1.0
_HELP: Final = {"help_option_names": ["-h", "--help"]}


@click.group("spool", context_settings=_HELP)
def command() -> None:
    """Look at what waits on disk, and send it.

    Each command takes the FOLDER of a service's spool, or one that holds several. Without it, WEIR_SPOOL_DIR says
    which, else it is all services' folders in the default place.

    docs/spool.md describes what is on disk.
    """


command.add_command(drain.command)


# --- status


@command.command(
    context_settings=_HELP,
    epilog="""
\b
Examples:
  weir spool status                       all services of this user
  weir spool status /var/lib/cart/spool   one of them
  weir spool status --watch               again and again, until Ctrl-C
  weir spool status --json | jq '.services[].processes[].lanes.logs.waiting'
""",
)
@FOLDER
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
@click.option("--watch", is_flag=True, help="Refresh until Ctrl-C.")
def status(folder: Path | None, as_json: bool, watch: bool) -> None:
    """Show what waits, by service, process and signal, and what running processes say.

    Reads only; a running process does not notice. Exits with 1 when something cannot be read.
    """
    cache: Cache = {}

    def seen() -> tuple[Where, list[Service]]:
        where = where_is(folder)
        return where, [look(path, cache) for path in where.services]

    if not watch:
        where, services = seen()
        _show(where, services, as_json=as_json)
        sys.exit(_status_code(services))
    try:
        _watch(seen, as_json=as_json)
    except KeyboardInterrupt:
        pass  # the way to end it


def _watch(seen: Callable[[], tuple[Where, list[Service]]], *, as_json: bool) -> None:
    if as_json or not sys.stdout.isatty():
        while True:
            _show(*seen(), as_json=as_json, indent=None)
            sys.stdout.flush()
            time.sleep(_REFRESH_S)
    from rich.live import Live

    with Live(_view(*seen()), console=_console(), auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            time.sleep(_REFRESH_S)
            live.update(_view(*seen()), refresh=True)


def _status_code(services: Sequence[Service]) -> int:
    return int(any(service.problem or any(process.problem for process in service.processes) for service in services))


def _show(where: Where, services: list[Service], *, as_json: bool, indent: int | None = 2) -> None:
    if as_json:
        # Escaped to ASCII: reasons are a server's words.
        click.echo(json.dumps({"services": [_service_json(service) for service in services]}, indent=indent))
    else:
        _console().print(_view(where, services))


def _service_json(service: Service) -> dict[str, Any]:
    return {
        "folder": str(service.folder),
        "problem": service.problem or None,
        "disk_bytes": service.disk_bytes,
        "quota_bytes": _quota(service),
        "processes": [
            {
                "process": process.folder.name,
                "pid": process.pid,
                "state": process.state,
                "problem": process.problem or None,
                "lanes": {
                    lane: {"waiting": total.records, "bytes": total.bytes, "oldest_age_s": total.age_s}
                    for lane, total in _lanes(process).items()
                },
                "damaged": [_damage_json(found) for found in process.files if not found.is_whole],
                "status": asdict(said) if (said := _says(process)) is not None else None,
            }
            for process in service.processes
        ],
        "set_aside": [
            {"file": str(found.path), "lane": found.lane, "records": found.waiting, "reasons": dict(found.reasons)}
            for found in service.aside
            if found.waiting or not found.is_whole
        ],
        "damaged": [
            {"file": str(file.path), "lane": file.lane, "bytes": file.bytes, "reason": file.reason}
            for file in service.corrupt
        ],
    }


def _damage_json(found: Contents) -> dict[str, Any]:
    return {
        "file": str(found.path),
        "damaged": [list(damage) for damage in found.damage],
        "problem": found.problem or None,
    }


@dataclass(frozen=True)
class _Total:
    records: int
    bytes: int
    age_s: float | None


def _lanes(process: Process) -> dict[Lane, _Total]:
    """What waits in a process's folder, for each lane it has files of."""
    totals = {}
    now = time.time()
    for lane in LANES:
        files = [found for found in process.files if found.lane == lane]
        oldest = min((found.oldest for found in files if found.oldest is not None), default=None)
        if files:
            totals[lane] = _Total(
                sum(found.waiting for found in files),
                sum(found.waiting_bytes for found in files),
                None if oldest is None else round(max(0.0, now - oldest), 1),
            )
    return totals


def _quota(service: Service) -> int | None:
    """What the service's files may take: as a running process says, else as the environment does, if it says so."""
    for process in service.processes:
        said = _says(process)
        if said is not None and said.max_bytes:
            return said.max_bytes
    return load(os.environ).settings.spool_max_bytes if os.environ.get("WEIR_SPOOL_MAX_BYTES") else None


def _view(where: Where, services: list[Service]) -> RenderableType:
    from rich.console import Group as Several
    from rich.padding import Padding
    from rich.text import Text

    parts: list[RenderableType] = []
    for service in services:
        quota = _quota(service)
        room = "" if not quota else f" of {of_bytes(quota)} ({100 * service.disk_bytes / quota:.0f} %)"
        parts.append(
            Text.assemble((printable(service.folder), "bold"), f"   {of_bytes(service.disk_bytes)}{room} on disk")
        )
        if service.problem:
            parts.append(Text(f"  cannot be read: {service.problem}", "red"))
        rows = [row for process in service.processes for row in _rows(process)]
        if rows:
            head = ("process", "state", "signal", "waiting", "bytes", "oldest")
            parts.append(Padding(_table(head, rows, right=("waiting", "bytes", "oldest")), (0, 0, 0, 2), expand=False))
        elif not service.problem:
            parts.append(Text("  nothing waits, and no process runs", "dim"))
        said = [row for process in service.processes for row in _said(process)]
        if said:
            table = _table(_SAID, said, right=("delivered", "requests of", "answered in"))
            parts += [Text(), Padding(table, (0, 0, 0, 2), expand=False)]
        parts += [Text(f"  {line}", "yellow") for line in _troubles(service)]
        parts.append(Text())
    if not services:
        parts.append(Text(where.nothing))
    elif len(parts) > 1:
        parts.pop()
    return Several(*parts)


def _rows(process: Process) -> Iterator[list[str]]:
    first = [str(process.pid), process.state]
    if process.problem:
        yield [*first, f"cannot be read: {process.problem}", "", "", ""]
        return
    lanes = _lanes(process)
    if not lanes and process.state != "orphan":
        yield [*first, "", "0", "", ""]
    for lane, total in lanes.items():
        age = "" if total.age_s is None else of_age(total.age_s)
        yield [*first, lane, f"{total.records:,}", of_bytes(total.bytes), age]
        first = ["", ""]


def _says(process: Process) -> Status | None:
    """What a running process published about itself; what a dead one left says nothing about now."""
    return read_status(process.folder) if process.state != "orphan" else None


_SAID: Final = ("process", "signal", "delivered", "lost", "breaker", "requests of", "answered in", "to")


def _said(process: Process) -> Iterator[list[str]]:
    """How its delivery goes, by signal."""
    said = _says(process)
    first = str(process.pid)
    for lane, told in said.lanes.items() if said else ():
        if told.accepted or told.failing:
            to = f"{told.endpoint}: {told.failing}" if told.failing else told.endpoint
            yield [
                first,
                lane,
                f"{told.delivered:,}",
                ", ".join(f"{count:,} {why}" for why, count in told.lost.items() if count) or "0",
                f"{told.breaker}, for {of_age(told.wait_s)}" if told.breaker == "open" else told.breaker,
                of_bytes(told.target_bytes) if told.target_bytes else "",
                f"{1000 * told.mean_s:.0f} ms" if told.mean_s else "",
                to,
            ]
            first = ""


def _troubles(service: Service) -> Iterator[str]:
    for lane in LANES:
        reasons: Counter[str] = Counter()
        for found in service.aside:
            if found.lane == lane:
                reasons.update(found.reasons)
        for reason, count in reasons.most_common(10):
            yield f"set aside: {of_records(count)} ({lane}): {printable(reason)}"
    for file in service.corrupt:
        yield f"damaged and put away: {printable(file.path.name)}: {printable(file.reason)}"
    for process in service.processes:
        for found in process.files:
            if not found.is_whole:
                yield f"damaged: {process.folder.name}/{printable(found.path.name)}: {_damage(found)}"
    for found in service.aside:
        if not found.is_whole:
            yield f"damaged: {printable(found.path.name)}: {_damage(found)}"


def _damage(found: Contents) -> str:
    if found.problem:
        return f"cannot be read: {found.problem}"
    size = sum(damage.end - damage.start for damage in found.damage)
    stretches = "one damaged stretch" if len(found.damage) == 1 else f"{len(found.damage)} damaged stretches"
    return f"{stretches}, {of_bytes(size)}"


# --- verify


@command.command(
    context_settings=_HELP,
    epilog="""
\b
Examples:
  weir spool verify
  weir spool verify /var/lib/cart/spool --json
""",
)
@FOLDER
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
def verify(folder: Path | None, as_json: bool) -> None:
    """Check every frame of every file.

    A torn tail is what a write left that did not come to its end: it was never accepted, and is no damage. Exits with 1
    when something is damaged or cannot be read. Nothing is changed: damage costs the records it hits, and the others
    are delivered all the same.
    """
    where = where_is(folder)
    services = [look(path) for path in where.services]
    files = [found for service in services for process in service.processes for found in process.files]
    files += [found for service in services for found in service.aside]
    away = [file for service in services for file in service.corrupt]
    unread = [(service.folder, service.problem) for service in services if service.problem]
    unread += [(one.folder, one.problem) for service in services for one in service.processes if one.problem]
    ok = all(found.is_whole for found in files) and not away and not unread
    if as_json:
        click.echo(
            json.dumps(
                {
                    "ok": ok,
                    "files": [
                        {
                            "file": str(found.path),
                            "lane": found.lane,
                            "records": found.records,
                            "waiting": found.waiting,
                            "damaged": [list(damage) for damage in found.damage],
                            "torn_tail": list(found.torn) if found.torn else None,
                            "problem": found.problem or None,
                        }
                        for found in files
                    ],
                    "put_away": [{"file": str(file.path), "reason": file.reason} for file in away],
                    "unreadable": [{"folder": str(path), "problem": problem} for path, problem in unread],
                },
                indent=2,
            )
        )
        sys.exit(not ok)
    if not services:
        click.echo(where.nothing)
        return
    for found in files:
        if not found.is_whole:
            places = ", ".join(f"{damage.start}-{damage.end}" for damage in found.damage)
            whole = f"; {of_records(found.records)} whole" if not found.problem else ""
            click.echo(f"{printable(found.path)}: {_damage(found)}{f' (bytes {places})' if places else ''}{whole}")
        if found.torn:
            click.echo(f"{printable(found.path)}: torn tail, {of_bytes(found.torn.end - found.torn.start)}: no damage")
    for file in away:
        click.echo(f"{printable(file.path)}: put away as damaged: {printable(file.reason)}")
    for path, problem in unread:
        click.echo(f"{printable(path)}: cannot be read: {problem}")
    of_all = sum(found.is_whole for found in files)
    count = of_records(sum(found.records for found in files))
    click.echo(f"Whole files: {of_all} of {len(files) + len(away)}, with {count}.")
    if not ok:
        click.echo(
            "What is whole in damaged files is delivered all the same. docs/spool.md says what to do with the rest."
        )
    sys.exit(not ok)


# --- cat


@command.command(
    context_settings=_HELP,
    epilog="""
\b
Examples:
  weir spool cat | head
  weir spool cat --lane logs --json | jq .otlp
  weir spool cat --aside                   what servers refused, and why
""",
)
@FOLDER
@click.option("--lane", type=click.Choice(LANES), help="Only this signal.")
@click.option("--aside", is_flag=True, help="What was set aside, with the reason, instead of what waits.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with the record as OTLP's JSON.")
def cat(folder: Path | None, lane: Lane | None, aside: bool, as_json: bool) -> None:
    """Print the records that wait.

    Exits with 1 when something cannot be read. What a running process sends meanwhile may be among them.
    """
    failed = False
    for service in where_is(folder).services:
        for process, path in _files(service, aside=aside):
            try:
                for record in records(path):
                    if record.state == WAITING and lane in (None, record.lane):
                        sys.stdout.write(_record_text(record, service, process, as_json=as_json, aside=aside))
            except FileNotFoundError:
                pass  # sent meanwhile
            except OSError as error:
                if error.filename is None:
                    raise  # of the output
                click.echo(f"{printable(path)} cannot be read: {error.strerror}", err=True)
                failed = True
    sys.exit(failed)


def _files(service: Path, *, aside: bool) -> Iterator[tuple[str, Path]]:
    seen = look(service)
    if seen.problem:
        raise click.ClickException(f"{printable(service)} cannot be read: {seen.problem}")
    if aside:
        yield from (("", found.path) for found in seen.aside)
        return
    for process in seen.processes:
        if process.problem:
            click.echo(f"{printable(process.folder)} cannot be read: {process.problem}", err=True)
        yield from ((process.folder.name, found.path) for found in process.files)


def _record_text(record: Record, service: Path, process: str, *, as_json: bool, aside: bool) -> str:
    from otelweir.cli.records import decoded, line

    said = decoded(record.lane, record.group, record.record)
    if as_json:
        told: dict[str, Any] = {"id": record.id, "service": str(service)}
        told |= {"reason": record.reason} if aside else {"process": process}
        told |= {"lane": record.lane, "written": record.time}
        told |= {"otlp": said} if said is not None else {"raw": b64encode(record.record).decode()}
        return f"{json.dumps(told)}\n"
    text = line(record.lane, said) if said is not None else f"{record.lane}  {len(record.record)} bytes, not readable"
    reason = f"    set aside: {printable(record.reason)}\n" if aside else ""
    return f"{printable(text)}\n{reason}"


# --- what they share


def _console() -> Any:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 400  # a pipe has no width: cut nothing
    return console


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: tuple[str, ...] = ()) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0), collapse_padding=True)
    for name in head:
        last = name == head[-1]
        table.add_column(name, justify="right" if name in right else "left", no_wrap=not last, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell), "yellow" if cell == "orphan" else "") for cell in row))
    return table
