"""Names whose values are never captured: parameters, keys and fields such as `password`.

This keeps secrets out of what is captured here; what hides in texts is the business of redaction, which follows.
"""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "***"

_WORDS: Final = frozenset(
    {"password", "passwd", "pwd", "passphrase", "secret", "secrets", "authorization"}
    | {"credential", "credentials", "cookie", "cookies"}
)
_NAMES: Final = frozenset(
    {"token", "auth", "bearer", "pin", "cvv", "apikey", "x_api_key"}
    | {f"{what}_key" for what in ("api", "access", "private", "signing", "encryption")}
    | {f"{what}_token" for what in ("access", "auth", "refresh", "id", "bearer", "session", "api")}
)
_PART: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_MOST: Final = 4096


class _Hidden(dict[str, bool]):
    """By name, whether its value is hidden; bounded, because keys of the application's data end up here."""

    def __missing__(self, name: str) -> bool:
        if len(self) >= _MOST:
            self.clear()
        words = [word.lower() for word in _PART.findall(name[:256])]
        found = not _WORDS.isdisjoint(words) or "_".join(words) in _NAMES
        if len(name) <= 256:
            self[name] = found
        return found


_hidden: Final = _Hidden()


def is_hidden(name: str) -> bool:
    """Whether what has this name is a secret.

    Words count, not letters: `max_tokens` and `secretary` are none.

    >>> is_hidden("dbPassword"), is_hidden("api-key"), is_hidden("max_tokens")
    (True, True, False)
    """
    return _hidden[name]
