"""The `weir` command: one command a file, imported when it is called."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import threading
from contextlib import suppress
from io import TextIOWrapper
from typing import Final, TextIO

import click

from otelweir import errors

COMMANDS: Final = {
    "demo": "Launch a small service, flood it and show what arrives.",
    "dev": "Run a local OTLP backend and watch what arrives.",
    "doctor": "Show the effective configuration and what is wrong with it.",
    "policy": "Check, explain and replay sampling policies.",
    "redact": "Show what redaction would hide in a file.",
    "spool": "Look at what waits on disk, and send it.",
}
"""Each command's module and the one line that `weir --help` says about it, so that help imports none of them."""

_UNWRITABLE: Final = {
    getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EBADF", "EINVAL") if hasattr(errno, name)
}
"""What a stream that takes no more fails with: the disk or the quota is full, the terminal is gone, it is closed."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"otelweir.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Examples:\n\n\b\n  weir demo\n  weir dev\n  weir doctor\n  weir policy check policy.yaml\n"
        "  weir redact check service.log\n  weir spool status"
    ),
)
@click.version_option(package_name="otelweir", prog_name="weir")
def cli() -> None:
    """Weir: an OpenTelemetry distribution for Python."""


def main() -> None:
    """Run the command line. Exit codes: 0 fine, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        try:
            code = _run()
        finally:
            _ignore_interrupts()
    except KeyboardInterrupt:
        # It came while another end was being told.
        _ignore_interrupts()
        code = _interrupted()
    sys.exit(code)


def _run() -> int:
    if sys.stderr is None:  # closed; commands ask it whether it is a terminal
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 (open until the end)
    if sys.stdout is None:
        return _failed("the standard output is closed; to discard it, write >/dev/null")
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")  # a pipe may know fewer signs than a log file holds
    try:
        # Without its own mode click gives back the code of `Exit` instead of leaving with it.
        code = cli(standalone_mode=False)
        sys.stdout.flush()
    except SystemExit as left:
        code = left.code
    except (click.exceptions.Abort, KeyboardInterrupt):
        return _interrupted()
    except click.ClickException as error:
        with suppress(OSError, ValueError):
            error.show()
        return error.exit_code
    except errors.WeirError as error:
        return _failed(str(error))
    except BrokenPipeError:
        _give_up(sys.stdout)  # whoever read it has seen enough
        return 1
    except (OSError, ValueError) as error:
        if not _of_output(error):
            raise
        _give_up(sys.stdout)
        return _failed(f"the output cannot be written: {getattr(error, 'strerror', None) or error}")
    return code if isinstance(code, int) else 0


def _interrupted() -> int:
    _tell("Interrupted.")
    return 130


def _failed(why: str) -> int:
    _tell(f"Error: {why}")
    return 1


def _tell(line: str) -> None:
    try:
        click.echo(line, err=True)
    except (OSError, ValueError):
        _give_up(sys.stderr)


def _of_output(error: OSError | ValueError) -> bool:
    """Whether it comes from writing to a stream. Everything else is a mistake of ours and keeps its traceback."""
    if isinstance(error, OSError):
        return error.filename is None and error.errno in _UNWRITABLE
    return sys.stdout.closed or sys.stderr.closed


def _give_up(stream: TextIO) -> None:
    """Let what is still in the buffer go nowhere; the interpreter would fail over it once more at its end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _ignore_interrupts() -> None:
    """The command is done and its exit code stands; an interrupt of the interpreter's end would replace it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
