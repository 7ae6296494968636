"""Which spools a command is to look at: what was named, or all services of the user."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import click

from otelweir.cli.words import printable
from otelweir.pipeline.spool.inspect import services_in
from otelweir.pipeline.spool.place import default_root

FOLDER = click.argument("folder", required=False, type=click.Path(path_type=Path))


@dataclass(frozen=True)
class Where:
    """Where to look.

    Attributes:
        folder: What was named, by argument, variable or default.
        services: The services' folders there.
    """

    folder: Path
    services: list[Path]

    @property
    def nothing(self) -> str:
        why = "no service has kept anything there yet" if not self.folder.exists() else "there is nothing in it"
        return f"No spool in {printable(self.folder)}: {why}."


def where_is(folder: Path | None, *, later: bool = False) -> Where:
    """Resolve the argument.

    Args:
        later: Whether services may yet come: a folder need not exist, and an empty one need not be a service's.

    Raises:
        BadParameter: It names no folder.
        ClickException: The folder cannot be read.
    """
    given = folder is not None
    variable = os.environ.get("WEIR_SPOOL_DIR", "").strip()
    if folder is None:
        folder = Path(variable).expanduser().absolute() if variable else default_root(os.environ)
    try:
        if given and not later and not folder.exists():
            raise click.BadParameter(f"{printable(folder)} does not exist", param_hint="FOLDER")
        if folder.exists() and not folder.is_dir():
            raise click.BadParameter(
                f"{printable(folder)} is no folder", param_hint="FOLDER" if given else "WEIR_SPOOL_DIR"
            )
        found = services_in(folder) if folder.exists() else []
    except OSError as error:
        raise click.ClickException(
            f"{printable(folder)} cannot be read: {error.strerror}. Run this as the user that the service runs as."
        ) from None
    if not found and not later and folder.exists() and (given or variable):
        found = [folder]  # that of a service of which nothing is left
    return Where(folder, found)
