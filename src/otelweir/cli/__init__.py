"""The `weir` command: one command a file, imported when it is called."""

from __future__ import annotations

import importlib
import sys
from typing import Final

import click

from otelweir import errors

COMMANDS: Final = {
    "demo": "Launch a small service, flood it and show what arrives.",
    "dev": "Run a local OTLP backend and watch what arrives.",
    "doctor": "Show the effective configuration and what is wrong with it.",
    "policy": "Check, explain and replay sampling policies.",
}
"""Each command's module and the one line that `weir --help` says about it, so that help imports none of them."""


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
    epilog="Examples:\n\n\b\n  weir demo\n  weir dev\n  weir doctor\n  weir policy check policy.yaml",
)
@click.version_option(package_name="otelweir", prog_name="weir")
def cli() -> None:
    """Weir: an OpenTelemetry distribution for Python."""


def main() -> None:
    """Run the command line. Exit codes: 0 fine, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        # Without its own mode click gives back the code of `Exit` instead of leaving with it.
        code = cli(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except errors.WeirError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
