"""Where a service's spool is when no setting says so.

    $XDG_STATE_HOME/otelweir/<service>/       or ~/.local/state/otelweir/<service>/

One folder a service: its processes find what earlier ones left by its name. The name of the folder is that of the
service as far as a file may have it; where letters had to be replaced, or the name cut, a hash of all of it follows, so
that two services do not share a folder.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ASIDE: Final = "aside"
"""The folder, within a service's, of what will not be sent."""

ELSEWHERE: Final = "elsewhere"
"""The file, within a service's folder, that names the endpoint of its records where that is not the one the service's
others go to."""

PROCESS: Final = re.compile(r"(\d{1,10})-[0-9a-f]{8}")
"""How the folders of processes are named; the group is the process id."""

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")
_MAX_LETTERS: Final = 80
_NO_NAMES: Final = re.compile(r"(aside|con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that would be taken for something else, by us or by Windows."""


def default_root(environ: Mapping[str, str]) -> Path:
    """The folder of all services' folders.

    A variable that names no absolute path does not count, as the XDG specification says. Without a home, the path is
    one that hardly anybody may write.
    """
    state = environ.get("XDG_STATE_HOME", "")
    if not Path(state).is_absolute():
        state = str((_home(environ) or Path("/")) / ".local" / "state")
    return Path(state) / "otelweir"


def _home(environ: Mapping[str, str]) -> Path | None:
    home = environ.get("HOME", "")
    if Path(home).is_absolute():
        return Path(home)
    try:
        return Path.home()
    except RuntimeError:
        return None


def default_folder(service_name: str, environ: Mapping[str, str]) -> Path:
    """The folder of a service's spool.

    >>> default_folder("cart", {"XDG_STATE_HOME": "/state"}).as_posix()
    '/state/otelweir/cart'
    >>> default_folder("shop/cart", {"XDG_STATE_HOME": "/state"}).name
    'shop_cart-33838e03'
    """
    return default_root(environ) / _file_name(service_name)


def goes_elsewhere(folder: Path) -> str | None:
    """The endpoint to which the records in a service's folder go, where it is another than the service's usual one."""
    try:
        return (folder / ELSEWHERE).read_text(encoding="utf-8").strip()[:500] or None
    except (OSError, ValueError):
        return None


def _file_name(service_name: str) -> str:
    name = _UNSAFE.sub("_", service_name)[:_MAX_LETTERS]
    if name == service_name and name[:1].isalnum() and name[-1] != "." and not _is_taken(name):
        return name
    digest = f"{zlib.crc32(service_name.encode('utf-8', 'surrogatepass')):08x}"
    # No leading dot or dash: such a folder is hidden, or looks like an option.
    return f"{name.lstrip('.-') or 'service'}-{digest}"


def _is_taken(name: str) -> bool:
    return bool(_NO_NAMES.fullmatch(name) or PROCESS.fullmatch(name))
