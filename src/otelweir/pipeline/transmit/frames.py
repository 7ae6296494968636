"""The header `weir-frames`: which records a request holds, so that a doubled delivery can be told.

    weir-frames: 90f1c3a2b4d5e6f7:40-1f80*12,0011223344556677:40-40*1

For each file of the spool that records of the request come from: the file's identity (16 hexadecimal digits), the place
of the first and of the last of these records in the file (hexadecimal), and how many there are. A record keeps its file
and place as long as it waits, across processes and restarts.

- Equal headers: the same records.
- No file in common, or no place in common in any file: not one record in common.
- Otherwise records may be in common. They are, unless single records of a stretch were sent apart from the others, as
  happens when a server fails over some of them.

The header is left out where it would be longer than `MAX_LENGTH`, or where records have no such names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

MAX_LENGTH: Final = 2048

_ITEM: Final = re.compile(r"([0-9a-f]{16}):([0-9a-f]{1,8})-([0-9a-f]{1,8})\*([0-9]{1,10})")


def header(ids: Iterable[object]) -> str:
    """The header's value for the records with these ids; empty where there is none.

    Args:
        ids: 16 hexadecimal digits of the file's identity and 8 of the place, each.

    >>> header(["90f1c3a2b4d5e6f700000040", "90f1c3a2b4d5e6f700001f80"])
    '90f1c3a2b4d5e6f7:40-1f80*2'
    """
    files: dict[str, list[str]] = {}
    for name in ids:
        if not isinstance(name, str) or len(name) != 24:
            return ""
        files.setdefault(name[:16], []).append(name[16:])
    items = [f"{file}:{_short(min(places))}-{_short(max(places))}*{len(places)}" for file, places in files.items()]
    value = ",".join(items)
    # One look at the whole: a name of something else than digits does not go out.
    return value if len(value) <= MAX_LENGTH and all(map(_ITEM.fullmatch, items)) else ""


def overlap(one: str, other: str) -> bool:
    """Whether two requests may have records in common; False is certain. What cannot be read overlaps with nothing.

    >>> overlap("90f1c3a2b4d5e6f7:40-1f80*2", "90f1c3a2b4d5e6f7:1f80-2000*5")
    True
    """
    files: dict[str, tuple[int, int]] = {}
    for file, first, last in _read(one):
        files[file] = (first, last)
    return any(
        file in files and first <= files[file][1] and files[file][0] <= last for file, first, last in _read(other)
    )


def _short(place: str) -> str:
    return place.lstrip("0") or "0"


def _read(value: str) -> list[tuple[str, int, int]]:
    found = map(_ITEM.fullmatch, map(str.strip, value.split(",")))
    return [(item[1], int(item[2], 16), int(item[3], 16)) for item in found if item]
