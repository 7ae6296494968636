"""A cheap look at a text, which spares most texts the rules; and the names of the rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

DEFAULT: Final = ("email", "card", "iban", "ssn", "phone", "jwt", "pem", "url", "key")
"""Rules for values that are on by default. Names of secrets (`name`, also in texts) are a rule of their own."""

OPT_IN: Final = ("ipv4", "ipv6")


def set_of(words: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(words.split())


_TOKENS: Final = bytes(0x78 if (chr(sign).isalnum() and sign < 128) or sign == 0x5F else 0x20 for sign in range(256))
_NUMBERS: Final = bytes(
    0x30 if chr(sign) in "0123456789 -()" and sign < 128 else 0x2E if sign == 0x2E else 0x78 for sign in range(256)
)
_A_TOKEN: Final = b"x" * 15
_A_NUMBER: Final = b"0" * 9
_A_DOTTED: Final = b"000.000.0000"

AT, LONG, NUMBER, DASHES, PAIR = 1, 2, 4, 8, 16
"""What a text may hold: an `@`, a long run of letters, enough digits, dashes, a sign between a name and a value."""

NEEDS: Final[Mapping[str, int]] = {
    "pem": DASHES,
    "jwt": LONG,
    "key": LONG,
    "url": AT,
    "email": AT,
    "card": NUMBER | LONG,
    "iban": NUMBER | LONG,
    "ssn": NUMBER,
    "phone": NUMBER | LONG,
}
"""Which of these a text needs, one at least, for a rule to be tried. What is not listed is always tried."""


def looks(text: str) -> int:
    """What a text may hold, as bits; cheap, and never wrong about what it cannot hold."""
    seen = AT if "@" in text else 0
    if "=" in text or ":" in text:
        seen |= PAIR
    length = len(text)
    if length < 9:
        return seen
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = text.encode("utf-8", "replace")
    signs = data.translate(_NUMBERS)
    if _A_NUMBER in signs or _A_DOTTED in signs:
        seen |= NUMBER
    if length < 15:
        return seen
    if _A_TOKEN in data.translate(_TOKENS):
        seen |= LONG
    if "--" in text:
        seen |= PAIR
        if "-----BEGIN" in text:
            seen |= DASHES
    if " is " in text or "</" in text:
        seen |= PAIR
    if "glpat-" in text:
        seen |= LONG
    return seen
