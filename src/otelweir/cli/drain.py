"""`weir spool drain`: send what processes left that are gone."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from otelweir.cli.where import FOLDER, Where, where_is
from otelweir.cli.words import of_bytes, of_records, printable
from otelweir.pipeline.spool.place import PROCESS, goes_elsewhere
from otelweir.signals import LANES, Lane

if TYPE_CHECKING:
    from otelweir.distro.drain import Drain, Stop, Ways

_TELL_S: Final = 5.0
"""How often a line says how far it is, where there is no terminal."""


def _url(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        parts = urlsplit(value or "http://unset")
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        # Not repeated: it may hold a password.
        raise click.BadParameter("it is not a URL such as http://localhost:4318")
    return value


@click.command(
    "drain",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""
\b
Examples:
  weir spool drain                                     what dead processes left, once
  weir spool drain /var/lib/cart/spool --follow        as a sidecar
  weir spool drain --aside --endpoint http://other:4318
  */5 * * * *  weir spool drain /var/lib/cart/spool    as a cron job
""",
)
@FOLDER
@click.option(
    "--endpoint",
    metavar="URL",
    callback=_url,
    help="Base URL to send to, instead of what OTEL_EXPORTER_OTLP_* say.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, 86400 * 365),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to go on when nothing is delivered.",
)
@click.option("--aside", is_flag=True, help="Send again what was set aside, too.")
@click.option("--follow", is_flag=True, help="Go on, and send what processes leave that end later. Ctrl-C ends it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, and nothing else.")
def command(
    folder: Path | None, endpoint: str | None, timeout: float, aside: bool, follow: bool, as_json: bool
) -> None:
    """Send what processes left that are gone.

    It goes where the OTEL_EXPORTER_OTLP_* variables say, so run it with those of the service. Running processes send
    their own, which is not touched.

    Exits with 0 when everything was delivered, with 1 when something still waits or was refused, and says where it is
    and what to do; with 130 after Ctrl-C, which leaves on disk what was not delivered.

    With --follow, SIGTERM makes it look once more and send what it finds, for as long as --timeout says, so that a
    sidecar that is ended after the service sends the service's last records. It exits with 0, however much waits.
    """
    from otelweir.distro.drain import Stop, Ways
    from otelweir.settings import load

    where = where_is(folder, later=follow)
    if any(PROCESS.fullmatch(path.name) for path in where.services):
        raise click.BadParameter(
            f"{printable(where.folder)} is the folder of a process; name that of its service, the one above",
            param_hint="FOLDER",
        )
    with Stop(last_round=follow) as stop:
        ways = Ways(os.environ, load(os.environ).settings, endpoint, stop)
        drains: dict[Path, Drain] = {}
        try:
            if follow:
                _follow(folder, ways, drains, timeout, aside=aside, quiet=as_json)
            else:
                _once(where, ways, drains, timeout, aside=aside, quiet=as_json)
        except KeyboardInterrupt:
            pass
        finally:
            for one in drains.values():
                one.close()
            ways.close()
        _conclude(where, list(drains.values()), ways, stop, as_json=as_json, follow=follow)


def _once(where: Where, ways: Ways, drains: dict[Path, Drain], timeout: float, *, aside: bool, quiet: bool) -> None:
    from otelweir.distro.drain import run

    _join(where, ways, drains, set(), aside=aside)
    with _progress(drains, quiet=quiet) as told:
        while run(list(drains.values()), ways.stop, timeout, told) and aside:
            # There may be room now for what had none before.
            if not sum(one.take_back() for one in drains.values()):
                break


def _follow(
    folder: Path | None, ways: Ways, drains: dict[Path, Drain], timeout: float, *, aside: bool, quiet: bool
) -> None:
    from otelweir.distro.drain import ADOPT_S, run

    if not quiet:
        click.echo("Sending what ended processes left, until Ctrl-C.", err=True)
    left_alone: set[Path] = set()
    with _progress(drains, quiet=quiet) as told:
        looked = -ADOPT_S
        while not ways.stop.asked:
            if time.monotonic() - looked >= ADOPT_S:
                with suppress(click.ClickException):  # it was there, and may be again
                    _join(where_is(folder, later=True), ways, drains, left_alone, aside=aside)
                aside = False
                looked = time.monotonic()
            went = False
            for one in drains.values():
                went = one.turn() or went
            told()
            if not went or ways.stop.number:
                ways.stop.pause(0.2)
        with suppress(click.ClickException):
            _join(where_is(folder, later=True), ways, drains, left_alone, aside=False)
        run(list(drains.values()), ways.stop, timeout, told)


def _join(where: Where, ways: Ways, drains: dict[Path, Drain], left_alone: set[Path], *, aside: bool) -> None:
    """Take over what there is, but for what goes elsewhere and was not named."""
    from otelweir.distro.drain import Drain

    for folder in where.services:
        service = folder.resolve()
        if folder != where.folder and (endpoint := goes_elsewhere(folder)) is not None:
            if service not in left_alone:
                left_alone.add(service)
                click.echo(
                    f"{printable(folder)} is left alone: its records go to {printable(endpoint)}. To send them, name"
                    " the folder, and where they go with --endpoint.",
                    err=True,
                )
            continue
        if service not in drains:
            drains[service] = Drain(
                service, ways, lambda problem, detail: click.echo(f"{problem.code}: {detail}", err=True)
            )
        drains[service].adopt()
        if aside:
            drains[service].take_back()


@contextmanager
def _progress(drains: dict[Path, Drain], *, quiet: bool) -> Iterator[Callable[[], None]]:
    """Calls that show how far it is: a bar on a terminal, else a line now and then."""
    if quiet:
        yield lambda: None
        return
    if not sys.stderr.isatty():
        yield _lines_of_progress(drains)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} records"),
        TextColumn("{task.fields[sent]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    began = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("drain", total=0, sent="", rate="")

        def told() -> None:
            done, total, size = _done(drains)
            rate = size / max(0.001, time.monotonic() - began)
            progress.update(task, completed=done, total=total, sent=of_bytes(size), rate=f"{of_bytes(int(rate))}/s")

        told()
        yield told


def _lines_of_progress(drains: dict[Path, Drain]) -> Callable[[], None]:
    began = said = time.monotonic()
    last = 0

    def told() -> None:
        nonlocal said, last
        now = time.monotonic()
        done, total, size = _done(drains)
        if now - said < _TELL_S or done == last:
            return
        said, last = now, done
        rate = of_bytes(int(size / max(0.001, now - began)))
        click.echo(f"{done:,} of {total:,} records sent, {of_bytes(size)}, {rate}/s", err=True)

    return told


def _done(drains: dict[Path, Drain]) -> tuple[int, int, int]:
    """Records that came to an end, all of them, and bytes delivered."""
    total = sum(one.adopted for one in drains.values())
    return (
        total - sum(sum(one.waiting().values()) for one in drains.values()),
        total,
        sum(one.bytes for one in drains.values()),
    )


def _conclude(where: Where, drains: list[Drain], ways: Ways, stop: Stop, *, as_json: bool, follow: bool) -> None:
    """Say what became of it, and leave."""
    left = {one.folder: [path for path in one.left_behind() if not _just_left(path, one)] for one in drains}
    ok = not any(
        one.left()
        or one.aside.total()
        or one.refused.total()
        or one.lost.total()
        or left[one.folder]
        or one.unreadable
        or one.not_taken_back()
        for one in drains
    )
    if as_json:
        click.echo(json.dumps({"ok": ok, "services": [_drain_json(one, left[one.folder], ways) for one in drains]}))
    else:
        for text in _verdicts(where, drains, left, ways):
            click.echo(text)
    if stop.number == signal.SIGINT and not follow:
        sys.exit(130)
    if stop.number == signal.SIGTERM and not follow:
        sys.exit(128 + signal.SIGTERM)
    sys.exit(0 if follow else not ok)


def _just_left(path: Path, one: Drain) -> bool:
    """Whether it is the folder in which we left what could not be sent."""
    return path.name == one.home


def _drain_json(one: Drain, left: list[Path], ways: Ways) -> dict[str, Any]:
    return {
        "folder": str(one.folder),
        "found": one.adopted,
        "delivered": dict(one.delivered),
        "waiting": one.left(),
        "set_aside": {lane: count for lane, count in one.aside.items() if count},
        "not_taken_back": one.not_taken_back(),
        "refused": {lane: count for lane, count in one.refused.items() if count},
        "lost": {why.value: count for why, count in one.lost.items()},
        "bytes": one.bytes,
        "running_processes": one.running(),
        "not_taken_over": [str(path) for path in left],
        "failing": {lane: {"endpoint": ways.endpoints[lane], "why": why} for lane, why in one.failing.items()},
    }


def _verdicts(where: Where, drains: list[Drain], left: dict[Path, list[Path]], ways: Ways) -> Iterator[str]:
    if not drains:
        yield where.nothing
    for one in drains:
        name = printable(one.folder)
        running = one.running()
        own = f" {running} running process{'' if running == 1 else 'es'} there: they send their own." if running else ""
        if one.delivered.total():
            yield f"{name}: {_by_lane(one.delivered)} delivered.{own}"
        elif not one.adopted and not left[one.folder]:
            yield f"{name}: nothing was left to send.{own}"
        if one.left():
            why = "; ".join(
                dict.fromkeys(f"{ways.endpoints[lane]}: {printable(why)}" for lane, why in one.failing.items())
            )
            yield (
                f"{name}: {_by_lane(one.left())} still wait{'s' if sum(one.left().values()) == 1 else ''}"
                f"{f' ({why})' if why else ''}. They stay on disk: run this again when the endpoint answers."
            )
        if one.aside.total():
            yield (
                f"{name}: {_by_lane(one.aside)} refused and set aside. `weir spool cat {name} --aside` shows them with "
                "the server's words; when the cause is mended, `weir spool drain --aside` sends them again."
            )
        if one.refused.total():
            yield f"{name}: {_by_lane(one.refused)} refused by the server within requests that it took; they are gone."
        if there := one.not_taken_back():
            yield (
                f"{name}: {of_records(there)} still set aside: there is no room to take them back "
                "(WEIR_SPOOL_MAX_BYTES), or somebody else is at it."
            )
        if one.lost.total():
            why = ", ".join(f"{loss.value} {count:,}" for loss, count in one.lost.items())
            count = of_records(one.lost.total())
            yield f"{name}: {count} lost: {why}. `weir spool verify {name}` shows what is damaged."
        for path in left[one.folder]:
            yield (
                f"{printable(path)} could not be taken over. "
                "Run this as the user that the service runs as, and let him write there."
            )
        for text in one.unreadable:
            yield f"{printable(text)}. Run this as the user that the service runs as."


def _by_lane(counts: dict[Lane, int] | Counter[Lane]) -> str:
    total = of_records(sum(counts.values()))
    return f"{total} ({', '.join(f'{lane} {counts[lane]:,}' for lane in LANES if counts.get(lane))})"
