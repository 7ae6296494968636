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
_A_TOKEN: Final = "x" * 15
_A_NUMBER: Final = "0" * 9
_A_DOTTED: Final = "000.000.0000"

AT, LONG, NUMBER, DASHES, PAIR, OPTION = 1, 2, 4, 8, 16, 32
"""What a text may hold: an `@`, a long run of letters, enough digits, dashes, a name before a value, options."""

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

_MIXED: Final = bytes(
    0x30
    if 0x30 <= sign <= 0x39
    else 0x61
    if (chr(sign).isalpha() and sign < 128) or chr(sign) in "#!$*&-_"
    else min(sign, 0x7F)
    for sign in range(256)
)


def _said(text: str, data: bytes) -> bool:
    """Whether a text without signs may say a secret, as in `the password is ...`: what is said so has letters and
    digits in it, or is a number, or stands in quotes."""
    mixed = data.translate(_MIXED).decode()
    if "a0" in mixed or "0a" in mixed or "'" in text or '"' in text:
        low = text.lower()
        return (
            "pass" in low
            or "oken" in low
            or "ecret" in low
            or "key " in low
            or "code" in low
            or "auth " in low
            or "phrase" in low
            or "kennwort" in low
            or "pw " in low
            or "pin " in low
            or "otp " in low
            or "cvv " in low
            or "dentified by " in low
            or ("(" in text and ("'," in text or '",' in text))
        )
    if "000" in mixed:
        low = text.lower()
        return "code" in low or "otp" in low or "pin " in low or "cvv " in low
    return False


def looks(text: str) -> int:
    """What a text may hold, as bits; cheap, and never wrong about what it cannot hold."""
    seen = AT if "@" in text else 0
    if "=" in text or ":" in text:
        seen |= PAIR
    length = len(text)
    if length < 9:
        return seen
    if "%" in text:
        if "%40" in text:
            seen |= AT
        if "%3" in text:
            seen |= PAIR
        if "%2B" in text:
            seen |= NUMBER
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = text.encode("utf-8", "replace")
    # As texts, in which looking for something takes a quarter of the time.
    signs = data.translate(_NUMBERS).decode()
    if _A_NUMBER in signs or _A_DOTTED in signs:
        seen |= NUMBER
    if "-" in text:
        if "--" in text:
            seen |= PAIR
            if "-----BEGIN" in text:
                seen |= DASHES
        if " -" in text:
            seen |= OPTION
        if "glpat-" in text or "sk-" in text:
            seen |= LONG
    if not seen & PAIR and (("<" in text and "</" in text) or (" " in text and _said(text, data))):
        seen |= PAIR
    if (length >= 15 and _A_TOKEN in data.translate(_TOKENS).decode()) or ":AA" in text:
        seen |= LONG
    return seen
