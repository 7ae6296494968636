"""What stands in the place of a secret: a mark, a part of it, a keyed hash of it, or nothing."""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias, get_args

Action: TypeAlias = Literal["mask", "partial", "hash", "drop"]
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)

FAILED: Final = "[redaction failed]"
"""Stands in the place of what could not be looked at."""

EXPLAINED: Final = r"(?i:your|my|some)[_-](?:[A-Za-z]{1,12}[_-]){0,3}(?i:key|token|secret|password|here)"
"""What who explains something writes where a secret goes: `YOUR_API_KEY`."""

PLACE: Final = re.compile(
    r"\$\{[^}]{0,256}\}|\$[A-Z][A-Z0-9_]{1,64}|\{\{?[\w. ]{1,64}\}?\}|<[\w *-]{1,64}>"
    r"|%\(\w{1,64}\)s|%s|[*•]{3,64}|x{3,64}|X{3,64}"
    rf"|(?i:\[?(?:redacted|filtered|masked|hidden)\]?)|{EXPLAINED}"
)
"""What others put in the place of a secret, or who explains where one goes. A value as a whole; what stands for one in
the middle of a text is looser, and `pairs` knows it."""

MARK: Final = re.compile(r"\[redacted:[\w-]{1,40}(?::[0-9a-f]{16})?\]")
"""What a mark or a hash looks like: it was a secret, and is none."""

_ALL: Final = frozenset({"name", "url", "pem", "jwt"})
"""Rules whose secrets show no part of themselves: what is left of a password helps to guess it."""


def mark(rule: str) -> str:
    """
    >>> mark("email")
    '[redacted:email]'
    """
    return f"[redacted:{rule}]"


def partial(rule: str, text: str) -> str:
    """Enough to tell two of them apart, too little to use one.

    >>> partial("email", "alice@example.com"), partial("card", "4111 1111 1111 1111"), partial("name", "hunter2")
    ('a***@example.com', '***1111', '[redacted:name]')
    """
    if rule in _ALL:
        return mark(rule)
    if rule == "email":
        return f"{text[0]}***{text[text.rindex('@') :]}" if "@" in text else mark(rule)
    if rule in ("ipv4", "ipv6"):
        sign = "." if rule == "ipv4" else ":"
        return f"{sign.join(text.split(sign)[:2])}{sign}***"
    return f"***{text[-4:]}" if len(text) >= 12 else mark(rule)


def hashed(rule: str, text: str, key: bytes) -> str:
    """The same for the same text and key, so that values can still be joined and counted; 64 bits of HMAC-SHA256."""
    # Only here: few ask for hashes, and they are much to load.
    import hmac
    from hashlib import sha256

    digest = hmac.digest(key, text.encode("utf-8", "surrogatepass"), sha256)
    return f"[redacted:{rule}:{digest.hex()[:16]}]"


def replaced(rule: str, text: str, action: Action, key: bytes) -> str:
    """What stands for a secret in a text.

    Args:
        key: For hashes; where it is empty, they are marks, as a hash without a key can be found by trying.
    """
    match action:
        case "drop":
            return ""
        case "partial":
            return partial(rule, text)
        case "hash" if key:
            return hashed(rule, text, key)
    return mark(rule)
