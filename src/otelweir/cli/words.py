"""How the command line says sizes, ages, counts, and what others wrote."""

from __future__ import annotations


def printable(text: object) -> str:
    """Fit for a terminal: whatever could steer it, or break the line, is escaped."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in str(text))


def of_records(count: int) -> str:
    """
    >>> of_records(1), of_records(1234)
    ('1 record', '1,234 records')
    """
    return f"{count:,} record{'' if count == 1 else 's'}"


def of_bytes(size: float) -> str:
    """
    >>> of_bytes(20), of_bytes(2500), of_bytes(512 * 2**20)
    ('20 bytes', '2.4 KiB', '512 MiB')
    """
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def of_age(seconds: float) -> str:
    """
    >>> of_age(12.4), of_age(600), of_age(86400 * 3)
    ('12 s', '10 min', '3 days')
    """
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"
