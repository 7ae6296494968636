"""Secrets that a text gives with their name: `password=...`, `"api_key": "..."`, `Authorization: Bearer ...`.

The text is searched for what names of secrets have in them, which is cheap; only where such a stem stands before a sign
like `=` is the name read and judged, and then the value. Each look is bounded, or what it passes is not passed again,
so the time is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from otelweir.pipeline.redact.actions import EXPLAINED
from otelweir.pipeline.redact.checks import UUID, generated, random_looking
from otelweir.pipeline.redact.hint import set_of
from otelweir.pipeline.redact.names import Names, words_of

_NAME: Final = 64
"""Characters of a name that are looked at, to each side of a stem."""

_LONG: Final = 4096
_MANY: Final = 300
_SPARSE: Final = 150

_GAP: Final = r"[^\S\n]{0,3}+"
_BREAK: Final = _GAP + r"(?:\n[^\S\n]{0,40}+)?"
"""At most one end of a line: what is found in a text is found in some two of its lines (see `Scrubber`)."""

_AFTER: Final = re.compile(
    r"([\w.-]{0,64}+)(\\{0,7}+[\"']|%22)?[\])]?"
    rf"(?:({_GAP}(?:=>|->|:=|={{1,3}}+|:(?!:|//)|>(?=[^\s<])|%(?:25)?3[AaDd]){_BREAK})"
    rf"|((?:\s(?:for|of|to|on|at|from|in|für|von|pour|de|para|voor|van)\s[^\n.:=;,\"'?!]{{1,60}}?)?(?:[^\S\n](?:is|was|ist|war|lautet|to|est|es):?[^\S\n]|:[^\S\n])"
    rf"{_GAP})"
    rf"|((?:,|\\{{1,7}}n)?{_BREAK}\\{{0,7}}[\"']?(?<=[\s\"'])value\\{{0,7}}[\"']?{_GAP}[:=]{_GAP}"
    r"|\s[A-Za-z:]{1,40}+=[\"'][^<>\n]{0,120}+>(?=[^\s<])"
    r"|,\s?(?=\\{0,7}[\"']))"
    r"|( ))"
)
"""The rest of a name, and what stands between it and its value: a sign, words, an attribute `value`, or a space."""

_SCHEME: Final = re.compile(
    r"(?:Bearer|Basic|Digest|Token|ApiKey|Negotiate|AWS4-HMAC-SHA256)(?:[^\S\n]{1,3}+|\+|%20)(?=\S)", re.I
)
_PARTS: Final = re.compile(
    r"(?:[\w-]{1,40}+=(?:\\{0,3}+\"[^\"\n]{0,512}+\"|[^\s\",]{1,512}+)(?:,[^\S\n]{0,3}+)?){1,20}+"
)
_QUOTE: Final = re.compile(r"\[?[^\S\n]?(?:[brfu]{1,2}(?=[\"']))?(\\{0,7}+[\"'])", re.I)
_TUPLE: Final = re.compile(
    r"(?:[A-Za-z]{0,30}+)[(\[]\s?[bu]?(\\{0,7}+[\"'])[^\"'\n\\]{0,80}+\1,\s?[bu]?\1([^\"'\n\\]{1,200}+)\1"
)
"""Name and password, as Python's HTTP clients take them."""

_PLAIN: Final = re.compile(r"[^\s\"'`<>,;&|()\[\]{}\\]++")
_SPOKEN: Final = re.compile(r"[^\s\"'`<>,;|()\[\]{}\\]++")
_ENCODED: Final = re.compile(r"(?:[^\s\"'`<>,;&|()\[\]{}\\%]|%(?!(?:25)?(?:26|22|20|3B)))++", re.I)
_LINE: Final = re.compile(r"[^\r\n\"]++")
_PLACE: Final = re.compile(
    r"\$\d{1,3}|\$[A-Z_]+|\$\{[^}]*\}?|\$\([^)]*\)?|%s|%\(\w*\)s|\?|[:@][a-z_]+|\{[\w.]*\}?|\{\{[^}]*\}\}|<[\w *-]*>?"
    r"|[*xX._#…•-]*|\[?(?i:redacted|filtered|masked|hidden|removed)(?::[\w:-]*)?\]?|!(?:vault|secret|Ref|Sub|GetAtt|reference)"
    rf"|{EXPLAINED}"
)
"""What stands in the place of a value, and is none."""

_BEGINS_PLACE: Final = re.compile(r"\$\{|\$\(|%\(\w{1,64}+\)|\{\{|<[A-Za-z][\w *-]{0,60}+>")
_ANY: Final = re.compile(r"\w")
_COOKIE: Final = re.compile(
    r"(?!(?i:path|domain|expires|max-age|samesite|priority)=)(?<![^\s;:,])[^\s=;,]{1,128}+=([^;\s]*+)"
)
_SHORTEST_COOKIE: Final = 6

_SENTENCES: Final = frozenset(("passphrase", "phrase", "mnemonic"))
_WORDS_APART: Final = re.compile(r"[a-z]{3,12}+(?: [a-z]{3,12}+){3,23}+(?![^\n\"',;.])")
"""Four small words and more, and nothing else before the end: what is not a sentence about it."""

_FILE: Final = re.compile(r"\.(?:py|js|ts|tsx|jsx|go|rs|java|rb|php|cs|c|h|cpp|kt|vue|html|css)\Z")
_CALL: Final = re.compile(r"\w\( ?[\"']\Z")
_ASSIGNED: Final = re.compile(r"(?:user|login|pass|name|id|key|token|type|method|realm)[a-z_]{0,12}=")
_SHORT_NUMBER: Final = re.compile(r"\d{3,8}")

_CODE: Final = re.compile(
    r"(?:self|cls|os|sys|settings|config|conf|request|response|kwargs|args|env|data|app|ctx|process|this)\.\w.*"
    r"|[A-Za-z_]+(?:\.[A-Za-z_]+){2,20}"
)
_PATH: Final = re.compile(r"(?:~|\.{1,2})?(?:/[\w.@-]+){2,}/?|[\w.-]+\.(?:py|json|ya?ml|pem|txt|env|toml)(?::\d+)?")
_NUMBER: Final = re.compile(r"[-+]?\d[\d.,_]*(?:/\d+)?%?[a-z]{0,2}")
_TYPE: Final = re.compile(r"(?:Optional|Union|Callable|Sequence|Mapping|Dict|List|Any|Secret\w*|Str|SecretStr)\b.*")

_WORDS: Final = set_of(
    "a absent accepted active all allow already an and any are as async await authentication authorization available "
    "been before bool boolean bytes bad blank by cannot can changed check closed correct could created denied deny did "
    "disabled do "
    "does done empty enabled error exception exists expired fail failed failure false for found function get "
    "given granted had has if ignored in inherit incorrect int integer invalid is it kept loaded lambda malformed may "
    "mismatch missing must need needed needs never new nil no none not null ok on off only optional or passed "
    "pending please present redacted received refreshed refused rejected removed renewed required requires reset "
    "revoked rotated saved sent set should skipped still str string success succeeded that the this to too true "
    "type undefined unauthorized unchanged unknown unset updated use used user using valid validated value "
    "verified was were when will with wrong yes you your expires "
)
"""Words that follow the name of a secret where something is said about it."""

_QUERY: Final = frozenset(
    ("sig", "signature", "code", "key", "x-amz-signature", "x-goog-signature", "awsaccesskeyid", "appid")
)
"""Names that mean a secret in the query of an address only, and with a value that is long."""

_GENERATED: Final = frozenset(("sig", "signature", "code"))
"""The same outside of addresses, where what follows is long and was drawn."""

_PASSWORDS: Final = set_of(
    "password passwd passphrase passcode passwort kennwort pw bindpw pass requirepass masterauth "
)
_ALGORITHMS: Final = ("sha", "md5", "argon2", "bcrypt", "scrypt", "pbkdf2", "utf8", "base64", "aes", "oauth2", "rfc")

_SAID: Final = (
    "pass",
    "oken",
    "ecret",
    "key",
    "code",
    "auth",
    "phrase",
    "kennwort",
    "pin ",
    "otp ",
    "cvv ",
    "pw ",
    " is ",
    "identified by ",
)
"""As in `hint`, and what may be said at length."""

_YOURS: Final = re.compile(r"\b([0-9]{4,8}) is your (?:[\w-]{1,20}+ ){0,3}(?:code|otp|pin|password)\b", re.I)
_REDIS: Final = re.compile(r"AUTH (?:[\w.-]{1,64}+ )?([^\s]{4,256}+)\s*\Z")
_IDENTIFIED: Final = re.compile(r"identified by (?:password )?(['\"])", re.I)


def pairs(text: str, names: Names) -> Iterator[tuple[int, int]]:
    """Where the values of secrets begin and end."""
    low = text.lower()
    if len(low) != len(text):  # the only letter that has two when it is small
        low = text.replace("İ", "I").lower()
    if len(low) >= _MANY and not _may_be_there(low, names):
        return
    yield from _phrases(text, low)
    stems = [stem for stem in names.stems if stem in low]
    if not stems:
        return
    at = sorted([place for stem in stems for place in _places(low, stem)])
    done = 0
    for place, length in at:
        if place >= done and (found := _at(text, place, length, done, names)) is not None:
            done = found[1]
            yield found


def _phrases(text: str, low: str) -> Iterator[tuple[int, int]]:
    """What is told by a phrase, and not by a name."""
    if "identified by " in low:
        for found in _IDENTIFIED.finditer(text):
            yield found.end(), _closing(text, found.end(), found[1])
    if low.startswith("auth ") and (command := _REDIS.match(text)) and _mixed(command[1]):
        yield command.span(1)
    if " is your " in low:
        for found in _YOURS.finditer(text):
            yield found.span(1)


def _at(text: str, place: int, length: int, done: int, names: Names) -> tuple[int, int] | None:
    """The value after the name around a stem; None where there is none, or it is no secret.

    Args:
        place: Where the stem is.
        length: Of the stem.
        done: Where the last value ended.
    """
    after = _AFTER.match(text, place + length)
    if after is None:
        return None
    begin = _name_begins(text, place, done)
    if text.startswith("[redacted:", max(0, begin - 10)) and begin >= 10:
        return None  # a mark with a hash
    name = (text[begin : place + length] + after[1]).removeprefix("-D")
    sign, quoted, flag = after[3], after[2] is not None, text.startswith("-", begin)
    strict = after[4] is not None or (sign or "").strip() in ("==", "->") or name[-3:].lower() == "jwt"
    if sign == ":" and ((begin and text[begin - 1] == ":") or _FILE.search(name)):
        return None  # a part of an ARN or another name with colons; a place in a file
    if after[5] is not None and after[5].strip() == "," and not flag:
        if _CALL.search(text, max(0, begin - 4), begin) is None:
            return None  # an item in a list, and neither an option of a command nor an argument: set("password", "x")
        strict = True
    if after[6] is not None and flag and after[1].endswith("."):
        return None
    if not names.secret(name):
        if (drawn := _drawn(text, begin, after.end(), name.lower(), sign)) is not None:
            return drawn
        if flag or not names.secret(name := _with_the_word_before(text, begin, name)):
            return None
    if after[6] is not None and not flag:
        return (
            None if quoted or text[max(0, begin - 1) : begin] in ("$", "{") else _told(text, after.end(), name, names)
        )
    return _value(text, after.end(), name, names, strict=strict, quoted=quoted)


def _drawn(text: str, begin: int, at: int, name: str, sign: str | None) -> tuple[int, int] | None:
    """The value of a name that means a secret only where the value is long: in an address, or where it was drawn."""
    if name.endswith(("secretid", "secret_id")) and (found := UUID.match(text, at)):
        return found.span()
    query = begin > 0 and text[begin - 1] in "?&" and name in _QUERY
    if not query and (sign != "=" or name not in _GENERATED):
        return None
    found = _PLAIN.match(text, at, at + _LONG)
    if found is None or found.end() - at < (16 if query else 20) or not (query or generated(found[0])):
        return None
    whole = _PLAIN.match(text, at)
    return whole.span() if whole is not None else None


def _may_be_there(low: str, names: Names) -> bool:
    """Whether a stem may stand before a sign. Where there are few signs in a long text, only what is before them is
    searched."""
    signs = low.count(":") + low.count("=") + (low.count("%3") if "%" in low else 0)
    if (
        signs * _SPARSE > len(low)
        or " -" in low
        or "--" in low
        or ("<" in low and "</" in low)
        or any(said in low for said in _SAID)
    ):
        return True
    before = ""
    for sign in (":", "=", "%3", "%253"):
        place = low.find(sign)
        while place >= 0:
            before += low[max(0, place - _NAME - 16) : place] + "\n"
            place = low.find(sign, place + 1)
    return any(stem in before for stem in names.stems)


def _told(text: str, at: int, name: str, names: Names) -> tuple[int, int] | None:
    """The value that follows a name with nothing between them: only what looks as if it came out of a generator."""
    quote = _QUOTE.match(text, at)
    if quote is not None:
        begin, end = quote.end(), _closing(text, quote.end(), quote[1])
        value = text[begin:end]
        fits = not any(map(str.isspace, value)) and len(value) >= 6
        fits = fits and (random_looking(value) or (words_of(name)[-1] in _PASSWORDS and _mixed(value)))
        fits = fits or (words_of(name)[-1] in ("phrase", "mnemonic") and len(value.split()) >= 6)
        return (begin, end) if fits and not _PLACE.fullmatch(value) else None
    span = _plain(_SPOKEN, text, at)
    if span is None:
        return None
    begin, end = span
    while end > begin and text[end - 1] in ".:!?" and (end == len(text) or text[end].isspace()):
        end -= 1
    value = text[begin:end]
    if end - begin == _LONG and (whole := _SPOKEN.match(text, at)):
        end = whole.end()
    last = words_of(name)[-1]
    if _SHORT_NUMBER.fullmatch(value) and (last in ("cvv", "cvc", "otp") or (last == "code" and len(value) >= 4)):
        return begin, end
    if "=" in value[:-2] or _harmless(text, value, end, name, names, strict=True):
        return None
    if last in _PASSWORDS:
        return (begin, end) if not value.lower().startswith(_ALGORITHMS) and "/" not in value else None
    return (begin, end) if generated(value) or (last == "code" and random_looking(value)) else None


def _mixed(value: str) -> bool:
    return any(map(str.isdigit, value)) and any(map(str.isalpha, value))


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
    # In an address: %26password%3D
    return place + 2 if place and text[place - 1] == "%" and text[place : place + 1].isdigit() else place


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
    words = words_of(name)
    if (quote := _QUOTE.match(text, at)) is not None:
        begin = quote.end()
        end = _closing(text, begin, quote[1])
        if scheme := _SCHEME.match(text, begin, end):
            begin = scheme.end()
        value = text[begin:end]
        if not _ANY.search(value) or _PLACE.fullmatch(value) or (strict and not random_looking(value)):
            return None
        return begin, end
    if _BEGINS_PLACE.match(text, at):
        return None
    if words[-1] == "auth" and (both := _TUPLE.match(text, at)):
        return both.span(2)
    scheme = _SCHEME.match(text, at)
    if scheme is not None:
        at = scheme.end()
        if parts := _PARTS.match(text, at):
            return parts.span()
    rest = _ENCODED if "%" in text[max(0, at - 5) : at] else _SPOKEN if strict else _PLAIN
    cookies = words[-1] in ("cookie", "cookies") and not quoted
    if cookies or (words[-1] in _SENTENCES and _WORDS_APART.match(text, at)):
        rest = _LINE
    span = _plain(rest, text, at)
    if span is None:
        return None
    begin, end = span
    if rest is not _LINE:
        if text.endswith("...", begin, end):
            return None  # somebody cut it off
        while end > begin and text[end - 1] in ".:?" and (end == len(text) or text[end].isspace()):
            end -= 1
    elif cookies and not any(len(said[1]) >= _SHORTEST_COOKIE for said in _COOKIE.finditer(text, begin, end)):
        return None  # lang=de; Path=/
    if text[end : end + 1] in (":", "=") and "\n" in text[max(0, begin - 40) : begin].rstrip(" \t\r")[-1:]:
        return None  # the next line, with a name of its own
    value = text[begin:end]
    if words[-1] == "auth" and _ASSIGNED.match(value):
        return None  # auth: user=bob password=...
    if not _ANY.search(value):
        return None
    if scheme is not None and len(value) >= 8:
        # What a scheme introduces is no code, whatever it looks like.
        harmless = value.lower() in _WORDS or _PLACE.fullmatch(value) is not None
    else:
        harmless = _harmless(text, value, end, name, names, strict=strict)
    if harmless:
        return None
    if end - begin == _LONG and (whole := rest.match(text, at)):
        end = whole.end()
    return begin, end


def _closing(text: str, at: int, quote: str) -> int:
    """Where a quoted text ends: at its quote, else with the line."""
    end = text.find(quote, at)
    # Behind a backslash it is part of the value, unless the opening one has a backslash itself.
    while end > at and len(quote) == 1 and text[end - 1] == "\\":
        end = text.find(quote, end + 1)
    limit = len(text) if end < 0 else end
    line = text.find("\n", at, limit)
    return limit if line < 0 else line


def _plain(pattern: re.Pattern[str], text: str, at: int) -> tuple[int, int] | None:
    """As far as a value without quotes goes; at most `_LONG`, as it may be refused, and be looked at from later on."""
    found = pattern.match(text, at, at + _LONG)
    return found.span() if found is not None else None


def _harmless(text: str, value: str, end: int, name: str, names: Names, *, strict: bool) -> bool:
    """Whether what follows the name of a secret, without quotes, is something else: a word about it, or code."""
    short = value if len(value) <= 256 else value[:256]
    if strict and not (random_looking(short) and len(short) >= 6):
        return not (
            _SHORT_NUMBER.fullmatch(short) and names.secret_number(name) and not name.lower().startswith("pass")
        )
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
