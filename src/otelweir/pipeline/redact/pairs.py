"""Secrets that a text gives with their name: `password=...`, `"api_key": "..."`, `Authorization: Bearer ...`.

The text is searched for what names of secrets have in them, which is cheap; only where such a stem stands before a sign
like `=` is the name read and judged, and then the value. Each look is bounded, or what it passes is not passed again,
so the time is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from otelweir.pipeline.redact.checks import random_looking
from otelweir.pipeline.redact.hint import set_of
from otelweir.pipeline.redact.names import Names, words_of

_NAME: Final = 64
"""Characters of a name that are looked at, to each side of a stem."""

_SPARSE: Final = 150

_AFTER: Final = re.compile(
    r"([\w.-]{0,64}+)(\\{0,3}+[\"'])?\]?"
    r"(?:(\s{0,3}+(?:=>|:=|={1,3}+|:(?!:|//)|>(?=[^\s<]))\s{0,3}+)|(\s{1,3}+(?:is|was)\s{1,3}+)|( ))"
)
"""The rest of a name, and the sign between it and its value."""

_SCHEME: Final = re.compile(r"(?:Bearer|Basic|Digest|Token|ApiKey|Negotiate|AWS4-HMAC-SHA256)\s{1,3}+(?=\S)", re.I)
_QUOTE: Final = re.compile(r"\[?\s?(?:[brfu]{1,2}(?=[\"']))?(\\{0,3}+[\"'])", re.I)
_PLAIN: Final = re.compile(r"[^\s\"'`<>,;&|()\[\]{}\\]++")
_LINE: Final = re.compile(r"[^\r\n\"]++")
_PLACE: Final = re.compile(
    r"\$\d{1,3}|\$[A-Z_]+|\$\{[^}]*\}?|\$\([^)]*\)?|%s|%\(\w*\)s|\?|[:@][a-z_]+|\{[\w.]*\}?|\{\{[^}]*\}\}|<[\w *-]*>?"
    r"|[*xX._#…•-]*|\[?(?i:redacted|filtered|masked|hidden|removed)(?::[\w:-]*)?\]?"
)
"""What stands in the place of a value, and is none."""

_CODE: Final = re.compile(
    r"(?:self|cls|os|sys|settings|config|conf|request|response|kwargs|args|env|data|app|ctx)\.\w.*"
)
_PATH: Final = re.compile(r"(?:~|\.{1,2})?(?:/[\w.@-]+){2,}/?|[\w.-]+\.(?:py|json|ya?ml|pem|txt|env|toml)(?::\d+)?")
_NUMBER: Final = re.compile(r"[-+]?\d[\d.,_]*(?:/\d+)?%?[a-z]{0,2}")
_TYPE: Final = re.compile(r"(?:Optional|Union|Callable|Sequence|Mapping|Dict|List|Any|Secret\w*|Str|SecretStr)\b.*")

_WORDS: Final = set_of(
    "a absent accepted active all already an and any are as authentication authorization available been before "
    "bool boolean bytes bad blank by cannot can changed check closed correct could created denied did disabled do "
    "does done empty enabled error exception exists expired fail failed failure false for found function get "
    "given granted had has if ignored in incorrect int integer invalid is it kept loaded lambda malformed may "
    "mismatch missing must need needed needs never new nil no none not null ok on off only optional or passed "
    "pending please present redacted received refreshed refused rejected removed renewed required requires reset "
    "revoked rotated saved sent set should skipped still str string success succeeded that the this to too true "
    "type undefined unauthorized unchanged unknown unset updated use used user using valid validated value "
    "verified was were when will with wrong yes you your expires "
)
"""Words that follow the name of a secret where something is said about it."""

_QUERY: Final = frozenset(("sig", "signature", "code", "key", "x-amz-signature", "x-goog-signature", "awsaccesskeyid"))
"""Names that mean a secret in the query of an address only, and with a value that is long."""


def pairs(text: str, names: Names) -> Iterator[tuple[int, int]]:
    """Where the values of secrets begin and end."""
    low = text.lower()
    if len(low) != len(text):  # the only letter that has two when it is small
        low = text.replace("İ", "I").lower()
    if not _near_signs(low, names):
        return
    stems = [stem for stem in names.stems if stem in low]
    if not stems:
        return
    at = sorted([place for stem in stems for place in _places(low, stem)])
    done = 0
    for place, length in at:
        if place < done:
            continue
        after = _AFTER.match(text, place + length)
        if after is None:
            continue
        begin = _name_begins(text, place, done)
        if text.startswith("[redacted:", max(0, begin - 10)) and begin >= 10:
            continue  # a mark with a hash
        name = text[begin : place + length] + after[1]
        said, flag = after[4] is not None or (after[3] or "").strip() == "==", after[5] is not None
        if after[3] == ":" and text.startswith(":", begin - 1) and begin:
            continue  # a part of an ARN or another name with colons
        if flag and not (text.startswith("-", begin) and not after[1].endswith(".")):
            continue
        if not names.secret(name):
            query = begin > 0 and text[begin - 1] in "?&"
            if query and name.lower() in _QUERY:
                if (value := _PLAIN.match(text, after.end())) and value.end() - value.start() >= 16:
                    done = value.end()
                    yield value.span()
                continue
            if flag or not names.secret(name := _with_the_word_before(text, begin, name)):
                continue
        if (found := _value(text, after.end(), name, names, strict=said, quoted=after[2] is not None)) is not None:
            done = found[1]
            yield found


def _near_signs(low: str, names: Names) -> bool:
    """Whether a stem may stand before a sign. Where there are few signs in a long text, only what is before them is
    searched."""
    signs = low.count(":") + low.count("=")
    if signs * _SPARSE > len(low) or " is " in low or " was " in low or "--" in low or "</" in low:
        return True
    before = ""
    for sign in ":=":
        place = low.find(sign)
        while place >= 0:
            before += low[max(0, place - _NAME - 16) : place] + "\n"
            place = low.find(sign, place + 1)
    return any(stem in before for stem in names.stems)


def _places(low: str, stem: str) -> Iterator[tuple[int, int]]:
    length = len(stem)
    place = low.find(stem)
    while place >= 0:
        yield place, length
        place = low.find(stem, place + length)


def _name_begins(text: str, place: int, least: int) -> int:
    least = max(least, place - _NAME)
    while place > least and ((sign := text[place - 1]).isalnum() or sign in "_-."):
        place -= 1
    return place


def _with_the_word_before(text: str, begin: int, name: str) -> str:
    """`key` alone is no secret, `API key` is."""
    if begin and text[begin - 1] == " ":
        return f"{text[_name_begins(text, begin - 1, 0) : begin - 1]} {name}"
    return name


def _value(text: str, at: int, name: str, names: Names, *, strict: bool, quoted: bool) -> tuple[int, int] | None:
    """Where the value begins and ends that follows at a place; None when nothing there is a secret.

    Args:
        strict: Whether the sentence may well say something else, so that only what looks random counts.
        quoted: Whether the name stands in quotes, as in JSON.
    """
    if (quote := _QUOTE.match(text, at)) is not None:
        begin = quote.end()
        end = _closing(text, begin, quote[1])
        if scheme := _SCHEME.match(text, begin, end):
            begin = scheme.end()
        value = text[begin:end]
        if not value.strip() or _PLACE.fullmatch(value) or (strict and not random_looking(value)):
            return None
        return begin, end
    if scheme := _SCHEME.match(text, at):
        at = scheme.end()
    words = words_of(name)
    rest = _LINE if words[-1] in ("cookie", "cookies") and not quoted else _PLAIN
    found = rest.match(text, at)
    if found is None:
        return None
    begin, end = found.span()
    if rest is _PLAIN:
        while end > begin and text[end - 1] in ".:!?" and (end == len(text) or text[end].isspace()):
            end -= 1
    value = text[begin:end]
    if not value or _harmless(text, value, end, name, names, strict=strict):
        return None
    return begin, end


def _closing(text: str, at: int, quote: str) -> int:
    """Where a quoted text ends: at its quote, else with the line."""
    line = text.find("\n", at)
    limit = len(text) if line < 0 else line
    end = text.find(quote, at, limit)
    # Behind a backslash it is part of the value, unless the opening one has a backslash itself.
    while end > at and len(quote) == 1 and text[end - 1] == "\\":
        end = text.find(quote, end + 1, limit)
    return limit if end < 0 else end


def _harmless(text: str, value: str, end: int, name: str, names: Names, *, strict: bool) -> bool:
    """Whether what follows the name of a secret, without quotes, is something else: a word about it, or code."""
    short = value if len(value) <= 256 else value[:256]
    if strict and not (random_looking(short) and len(short) >= 6):
        return True
    if short.strip(".,:!?").lower() in _WORDS or _PLACE.fullmatch(short):
        return True
    if _NUMBER.fullmatch(short) and not names.secret_number(name):
        return True
    after = text[end : end + 1]
    if after and after in "([" and short.replace(".", "").replace("_", "").isalnum():
        return True  # a call, or an item
    if _CODE.fullmatch(short) or _TYPE.fullmatch(short) or _PATH.fullmatch(short):
        return True
    # password=password, api_key=settings_api_key
    return short.isidentifier() and not any(map(str.isdigit, short)) and names.secret(short)
