"""What one sees while the demo runs: its stages, redrawn in a terminal, a line each elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Final, get_args

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from otelweir.demo.run import Moment, Stage
from otelweir.devserver.signs import Legible, has_signs, mark

STAGES: Final[tuple[Stage, ...]] = get_args(Stage)[:-1]
_WORDS: Final[dict[Stage, str]] = {
    "backend": "A backend starts on this machine",
    "service": "A small shop starts under opentelemetry-instrument",
    "customers": "Customers flood it over HTTP",
    "stop": "The shop is asked to end, and sends what it still has",
    "compare": "What arrived is compared with the shop's own log file",
    "assistant": "The shop's assistant asks a language model",
}


class Progress:
    """Shows each moment it is told; a context manager.

    Args:
        console: Where; the standard error, so that the standard output holds the result alone.
        seconds: How long customers come.
        without: Stages that are left out.
    """

    def __init__(self, console: Console, seconds: float, without: Collection[Stage] = ()) -> None:
        self._console = console
        self._view = _View(seconds, [stage for stage in STAGES if stage not in without])
        self._live: Live | None = None
        self._stage: Stage | None = None

    def tell(self, moment: Moment) -> None:
        self._view.moment = moment
        if moment.stage in (self._stage, "done"):
            return
        self._stage = moment.stage
        if not self._live:
            self._console.print(f"{_WORDS[moment.stage]} ...", highlight=False, soft_wrap=True)

    def __enter__(self) -> Progress:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(self._view, console=self._console, refresh_per_second=10)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._view.ended = True
            self._live.stop()


class _View:
    def __init__(self, seconds: float, stages: Sequence[Stage]) -> None:
        self.moment = Moment("backend")
        self._stages = stages
        self.ended = False
        self._seconds = seconds
        self._spinners = {name: Spinner(name, style="cyan") for name in ("dots", "line")}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        moment = self.moment
        at = len(self._stages) if moment.stage == "done" else self._stages.index(moment.stage)
        table = Table.grid(padding=(0, 1))
        failed, fine = (mark(ok, options.encoding) for ok in (False, True))
        table.add_column(width=max(3, len(failed) if self.ended else 0), justify="right")
        table.add_column(no_wrap=True, overflow="ellipsis")
        for index, stage in enumerate(self._stages):
            now = index == at
            sign = Text(fine, "green") if index < at else Text("·", "dim")
            if now and self.ended:
                sign = Text(failed, "red")
            text = Text(_WORDS[stage], "" if index <= at else "dim")
            if stage == "backend" and moment.url:
                text.append(f"  {moment.url}", "dim")
            table.add_row(self._spinner(options.encoding) if now and not self.ended else sign, text)
            if stage == "customers" and index <= at:
                table.add_row("", self._bar(options.max_width))
                table.add_row(
                    "",
                    Text.assemble(
                        (f"{moment.requests:,}", "bold"),
                        " requests  ",
                        (f"{moment.logged:,}", "bold"),
                        " records logged  ",
                        (f"{moment.arrived:,}", "bold green"),
                        " arrived",
                    ),
                )
        yield Text()
        yield Legible(table)
        yield Text()

    def _spinner(self, encoding: str) -> Spinner:
        return self._spinners["dots" if has_signs(encoding) else "line"]

    def _bar(self, width: int) -> Table:
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(self._seconds, self.moment.seconds, width=min(50, max(10, width - 20))),
            Text(f"{min(self.moment.seconds, self._seconds):.0f} of {self._seconds:g} s", "dim"),
        )
        return bar
