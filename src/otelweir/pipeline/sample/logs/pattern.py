"""What a pattern is: a stable id and a template.

The id is a pure function of what makes the pattern, so the same pattern has the same id in every process, after
every restart and across a fleet. It is 16 hexadecimal digits: a BLAKE2b digest of 8 bytes over the parts, joined by
NUL and preceded by the version of the scheme. Changing what goes into a pattern means a new version.
"""

from __future__ import annotations

from hashlib import blake2b

SCHEME = "weir1"
WILDCARD = "<*>"


class Pattern:
    """A group of log messages that are sampled together.

    Attributes:
        id: 16 hexadecimal digits, stable everywhere.
        template: The message with `<*>` for its variable parts.
    """

    __slots__ = ("id", "template")

    def __init__(self, id: str, template: str) -> None:  # noqa: A002 - the field's own name
        self.id = id
        self.template = template

    def __repr__(self) -> str:
        return f"<Pattern {self.id} {self.template[:60]!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


def pattern_of(template: str, *origin: str) -> Pattern:
    """The pattern with this template, told apart from others with the same one by its origin.

    Args:
        template: The message with `<*>` for its variable parts.
        origin: Where the message comes from, such as the file and function of the call; empty for plain text.
    """
    # Lone surrogates, as file names bring them, cannot be sent.
    if not template.isascii():
        template = template.encode("utf-8", "backslashreplace").decode()
    raw = "\0".join((SCHEME, template, *origin)).encode("utf-8", "surrogatepass")
    return Pattern(blake2b(raw, digest_size=8).hexdigest(), template)
