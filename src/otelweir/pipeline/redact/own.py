"""Patterns of somebody's own, and whether they are fit to be tried on any text.

Python's `re` comes back to what it passed, so a pattern like `(a+)+b` can take longer than the universe on thirty
letters. A pattern is accepted only if at each place of a text there are few ways to try it: what repeats has an end,
and the ways of its parts multiply to no more than `MAX_WAYS`. So the time is linear in the text, by construction.
"""

from __future__ import annotations

import importlib
import re
from typing import Any, Final

MAX_WAYS: Final = 1000
MAX_WIDTH: Final = 1024
MAX_PATTERN: Final = 500

_parser: Any = importlib.import_module("re._parser")
_TAKES_ONE: Final = {"LITERAL", "NOT_LITERAL", "IN", "ANY", "AT", "RANGE", "CATEGORY"}


def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern, ready for use.

    Raises:
        ValueError: It cannot be used; the words say why, and what to write instead.
    """
    if not 0 < len(pattern) <= MAX_PATTERN:
        raise ValueError(f"a pattern has 1 to {MAX_PATTERN} characters")
    try:
        parsed = _parser.parse(pattern)
        found = re.compile(pattern)
    except (re.error, RecursionError, OverflowError, Warning) as error:
        raise ValueError(f"is no regular expression of Python: {error}") from None
    if found.match("") is not None or parsed.getwidth()[0] == 0:
        raise ValueError("it matches nothing at all, hence everywhere; let it need a character")
    ways = _ways(parsed)
    if ways > MAX_WAYS:
        raise ValueError(
            f"there are {ways if ways < 10**6 else 'millions of'} ways to try it at each place, and {MAX_WAYS} are"
            " allowed; give repetitions narrower bounds, or make them possessive: {1,64}+"
        )
    if parsed.getwidth()[1] > MAX_WIDTH:
        raise ValueError(f"it can match more than {MAX_WIDTH} characters; bound what repeats, as in {{1,64}}")
    return found


def _ways(parsed: Any) -> int:
    """How many ways there are at most to try a pattern at one place."""
    ways = 1
    for name, argument in parsed:
        ways = min(ways * _of(str(name), argument), 10**9)
    return ways


def _of(name: str, argument: Any) -> int:
    match name:
        case "MAX_REPEAT" | "MIN_REPEAT":
            least, most, body = argument
            most = int(most)
            if most > MAX_WIDTH:
                raise ValueError("a repetition has no end (as in `+` and `*`); give it one, as in {1,64}")
            inner = _ways(body)
            if inner == 1:
                return most - int(least) + 1
            # Each turn may go another way.
            return int(min(10.0**9, float(inner) ** min(most, 30) * (most - int(least) + 1)))
        case "POSSESSIVE_REPEAT":
            least, most, body = argument
            if int(most) > MAX_WIDTH:
                raise ValueError("a repetition has no end (as in `+` and `*`); give it one, as in {1,64}")
            return min(_ways(body) * 2, 10**9)
        case "ATOMIC_GROUP":
            return _ways(argument)
        case "SUBPATTERN":
            return _ways(argument[-1])
        case "BRANCH":
            return sum(_ways(branch) for branch in argument[1])
        case "ASSERT" | "ASSERT_NOT":
            return _ways(argument[1])
        case "GROUPREF" | "GROUPREF_EXISTS":
            raise ValueError("it refers back to a group, which is not allowed")
    if name not in _TAKES_ONE:
        raise ValueError(f"{name.lower()} is not allowed")
    return 1
