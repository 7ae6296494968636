"""The text's own key: which pattern a rendered message belongs to, from its characters alone.

The scheme
----------
1. Every decimal digit becomes `0`, and each run of digits, with the hexadecimal letters and dashes that follow (and at
   the beginning of a word a few before), becomes one `0`. All that comes later sees only this form, so messages that
   differ in the values or lengths of their numbers have the same pattern by construction.
2. Quoted strings and `{...}` become `<*>`; the rest is split at white space, and each token is masked by itself: URLs,
   e-mail addresses, paths, network addresses, host, file and class names, the value of `key=value`, `True`, `None`,
   `null` and their like, calendar words, long hexadecimal, and whatever holds a digit become `<*>`. `key=`, `key:`,
   `name(` and `name[` before a value survive, and so does every plain word.
3. Rules that need more than one token: the name in `for user NAME`, the value in `key = value`, the unit after a
   number, and runs of `<*>`, which become one, so that lists of any length share a pattern.

Invariants
----------
- `template_of` is a pure function of the message: the same in every process, after every restart, across a fleet.
- No word is masked for being rare or for standing in a message similar to another: two messages that differ in a plain
  word have two patterns. Similarity thresholds hide rare templates in common ones, which a sampler must not do.
- The caches are keyed by the message without digits, by its form after step 1, or by the masked line, never by less, so
  a cached answer is the answer. Deleting digits instead would be shorter, but makes the word `be` of `00b360e8`.
- Only the first `MAX_BYTES` and `MAX_TOKENS` of a message, the first `MAX_TOKEN` characters of a token and the first
  `MAX_TEMPLATE` of a template count. Each expression starts at a place fixed by a look-behind or a literal and does
  not retry what it gave up, so time is linear in the length of the message. Long keys are not cached.
- A template holds no decimal digit and no lone surrogate.

The exception to purity is the guard against cardinality, see `TextPatterns`.

Sources: masks before grouping, and the wildcard, as in Drain3 (IBM); no training and no similarity, as opposed to He
et al., "Drain: An Online Log Parsing Approach with Fixed Depth Tree" (ICWS 2017). A word that takes too many values is
variable: Vaarandi, "A Data Clustering Algorithm for Mining Patterns from Event Logs" (IPOM 2003), here only a guard.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from otelweir.pipeline.sample.logs.pattern import WILDCARD, Pattern, pattern_of

MAX_BYTES: Final = 8192
"""What is read of a message, in UTF-8 bytes. The rest does not tell patterns apart."""

MAX_TOKENS: Final = 128
"""How many tokens of a message are read."""

MAX_TOKEN: Final = 1024
"""How much of a token is read, in characters."""

MAX_TEMPLATE: Final = 1024
"""The longest template, in characters."""

MAX_WORD: Final = 64
"""A word longer than this is a value."""

K = TypeVar("K", bound=str | bytes)
V = TypeVar("V")

OVERFLOW: Final = Pattern("0" * 16, WILDCARD)
"""What every new pattern becomes once there are as many as allowed. The id is fixed."""

# --- 1. digits ------------------------------------------------------------------------------------------------------

_ZEROS = bytes.maketrans(b"123456789", b"000000000")


def _zeros(message: str) -> bytes:
    return message.encode("utf-8", "surrogatepass").translate(_ZEROS)


# A run of digits, with the hexadecimal letters and the dashes that follow: numbers of any length, 0x1f, UUIDs.
_NUMBERS = re.compile(rb"0[-0a-fA-Fx]*")

# At the beginning of a word, or after a dash, also a few letters before it: hashes and UUIDs whose first digit is late.
_LATE = re.compile(rb"(?<![\w.$%~^+@\x80-\xff])[-a-fA-F]{1,12}0(?![\w.=(\[\x80-\xff])")


def _fold(key: bytes) -> bytes:
    """Make each number one zero, so that neither its length nor most of its hexadecimal letters count.

    What it swallows would be masked with the digit before it anyway; this is for speed: a known kind of message with a
    UUID in it is answered here, without being taken apart.
    """
    return _NUMBERS.sub(b"0", key)


def _fold_late(folded: bytes) -> bytes:
    """As `_fold`, which went before, for numbers that begin with hexadecimal letters."""
    return _LATE.sub(b"0", folded)


# --- 2. tokens ------------------------------------------------------------------------------------------------------
# Every expression starts at a place that a look-behind fixes, so that a long token is scanned once and not once a
# character. Digits are all `0` here.

_METHODS = "GET|HEAD|POST|PUT|DELETE|PATCH|OPTIONS|CONNECT|TRACE"

# The text of a field that holds the message itself; then any other quotation. Prefixes are those of Python's literals.
_QUOTED = re.compile(
    r"""(?<![\w\\])(?:
        (?P<field>"(?:event|message|msg)":\s*|(?:event|message|msg)=)"(?P<text>(?:[^"\\]|\\.)*+)"
      | (?:[bBrRuU]{0,2})(?:"(?P<double>(?:[^"\\]|\\.)*+)"|'(?P<single>(?:[^'\\]|\\.)*+)'|`[^`]*+`)
    )(?!\w)(?P<colon>:)?""",
    re.VERBOSE | re.DOTALL,
)
_REQUEST_LINE = re.compile(rf"(?:{_METHODS})(?= )")
_COLOUR = re.compile(r"\x1b\[[0;]*[A-Za-z]")
_FIELD_MARKS = '"=: \t\r\n'
_DEPTH = 4
_BRACES = re.compile(r"\{[^{}]*+\}")

_URL = re.compile(r"(?<![-+.A-Za-z0])[A-Za-z][-+.A-Za-z0]*+://[^\s,;()\[\]{}<>\"'|]*")
_AT = re.compile(r"(?<![-+.\w%])[-+.\w%]++@[-.\w]+(?<!\.)")
_PATH = re.compile(
    r"""(?<![-.\w)\]>*~+%@$])(?:
        (?:~\w*|\.\.?)?/(?:[^\s,;()\[\]{}<>"'|]*[^\s,;()\[\]{}<>"'|:.!?])?     # /a/b  ~/a  ../a
      | [A-Za-z]:[\\/][^\s,;()\[\]{}<>"'|]*                                    # C:\a
      | [-.\w$+~%@]*+\\[^\s,;()\[\]{}<>"'|]*                                   # \\host\a  a\b
      | [-.\w$+~%@]++(?:/[-.\w$+~%@]*+){2,}                                    # a/b/c
    )""",
    re.VERBOSE,
)
_COLONS = re.compile(r"(?<![\w:.])(?:[0A-Fa-f]{1,4}:|(?=::))(?:[0A-Fa-f]{0,4}:)+[0A-Fa-f]{1,4}(?!\w)")
_DOTTED = re.compile(r"(?<![-.\w$])[A-Za-z_][-\w$]*+(?:\.[-\w$]++)+(:0)?")
_VALUE = re.compile(r"(?<=[\w)\]>]=)[^\s,;()\[\]{}<>\"'=|&]+")
_EMPTY = re.compile(r"(?<![\w>])(?:\((?=\))|\[(?=\]))")
_LEADERS = re.compile(r"[^.]+(?:\.[^.]+)*+")
# Letters of other scripts do not belong to a number: sentences without spaces keep their words.
_NUMBER = re.compile(
    r"(?<![-+.$%^~_0A-Za-z])[-+.$%^~_A-Za-z]*+0(?:[-+.$%^~_0A-Za-z]*[-+$%^~_0A-Za-z])?(?P<named>[=(\[])?", re.ASCII
)
_IDENTIFIER = re.compile(r"-{0,2}[A-Za-z_][\w.-]*[=(\[]")
_ZERO_RUN = re.compile(r"0+")
_LESS_THAN = re.compile(r"^[<>]=?(?=[-+.]?0)")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LITERALS = _words("True False None null true false nil NULL nan NaN inf undefined")
_CALENDAR = _words(
    "Mon Tue Wed Thu Fri Sat Sun Monday Tuesday Wednesday Thursday Friday Saturday Sunday Jan Feb Mar Apr May Jun "
    "Jul Aug Sep Oct Nov Dec January February March April June July August September October November December AM "
    "PM UTC GMT EST EDT CST CDT MST MDT PST PDT CET CEST"
)
_WORDS = _LITERALS | _CALENDAR
_WORD = re.compile(rf"(?<![-.\w])(?:{'|'.join(sorted(_WORDS))})(?![-\w]|\.\w)")
_LONG = re.compile(rf"[a-f]{{8,}}|[A-F]{{8,}}|[A-Za-z]{{{MAX_WORD},}}")

_HOST_ENDS = _words(
    "com org net edu gov mil io local localdomain internal lan arpa ar au br ca ch cl cn co cz de dk es eu fi fr "
    "gr hk hu il ir jp kr mx nl nz pl pt ro ru se sg th tr tw ua uk vn za"
)
_FILE_ENDS = _words(
    "avi bak bat bin bmp bz2 c cc cfg conf cpp crt css csv cxx dat db dll doc docx exe gif gz h hpp htm html ico "
    "ini jar java jpeg jpg js json log md mp3 mp4 o pdf pem php pid pkl png properties ps1 py pyc rb rst sh so "
    "sock sql sqlite svg sys tar tgz tmp toml ts tsv txt war wav whl xls xlsx xml yaml yml zip"
)
_PACKAGES = _words("com org net edu gov io java javax jdk sun scala")

_OPENING = "([\"'#"
_CLOSING = ".,;:!?)]\"'"
_JOINED = re.compile(r"<\*>(?:[-+.,:;/\\@|%#~_^$&]*+<\*>)+")


def _dotted(match: re.Match[str]) -> str:
    """Mask host, file and class names; keep `Class.method`, `config.key` and abbreviations."""
    name = match[0]
    if match[1]:  # a port follows
        return WILDCARD
    labels = name.split(".")
    last = labels[-1]
    if last in _HOST_ENDS or last.lower() in _FILE_ENDS:
        return WILDCARD
    if len(labels) > 2 and (labels[0] in _PACKAGES or (last[:1].isupper() and not last.isupper())):
        return WILDCARD
    return name


def _number(match: re.Match[str]) -> str:
    part = match[0]
    if match["named"]:
        if _IDENTIFIER.fullmatch(part):  # the name of what follows
            return _ZERO_RUN.sub(WILDCARD, part)
        return WILDCARD + part[-1]
    return WILDCARD


def _mask(token: str) -> str:
    """The token with what varies in it replaced. Digits must have become zeros."""
    if len(token) > MAX_TOKEN:
        token = token[:MAX_TOKEN]
    core = token if token.isalpha() else token.lstrip(_OPENING).rstrip(_CLOSING)
    if core.isalpha():
        if core in _WORDS or (len(core) > 7 and _LONG.fullmatch(core)):
            return token.replace(core, WILDCARD, 1)
        return token
    if core.isalnum() and core.isascii():  # and has a zero, then
        return token.replace(core, WILDCARD, 1)
    return _mask_parts(token)


def _mask_parts(token: str) -> str:
    """As `_mask`, for a token that is more than a word or a number between punctuation."""
    if "://" in token:
        token = _URL.sub(WILDCARD, token)
    if "@" in token:
        token = _AT.sub(WILDCARD, token)
    if "/" in token or "\\" in token:
        token = _PATH.sub(WILDCARD, token)
    if ".." in token:
        return _LEADERS.sub(lambda piece: _mask(piece[0]), token)
    if "." in token:
        token = _DOTTED.sub(_dotted, token)
    if "=" in token:
        token = _VALUE.sub(WILDCARD, token)
    if "0" in token:
        if token.count(":") > 1:
            token = _COLONS.sub(WILDCARD, token)
        if token[0] in "<>":
            token = _LESS_THAN.sub("", token)
        token = _NUMBER.sub(_number, token)
    if "()" in token or "[]" in token:
        token = _EMPTY.sub(r"\g<0><*>", token)
    token = _WORD.sub(WILDCARD, token)
    if token.count(WILDCARD) > 1:
        token = _JOINED.sub(WILDCARD, token)
    return token


class _Memo(dict[K, V]):
    """A function of one argument with a memory of what it answered, emptied when full; long keys are not remembered.

    A dict whose look-up runs in C when the key is known. Threads may compute the same answer twice or empty it twice;
    either is harmless, as the function is pure. Each access is one dict operation, atomic under the GIL and under the
    dict's own lock on a free-threaded build.
    """

    __slots__ = ("_function", "_max_keys", "_max_length")

    def __init__(self, function: Callable[[K], V], max_keys: int, max_length: int) -> None:
        super().__init__()
        self._function = function
        self._max_keys = max_keys
        self._max_length = max_length

    def __missing__(self, key: K) -> V:
        value = self._function(key)
        if len(key) <= self._max_length:
            if len(self) >= self._max_keys:
                self.clear()
            self[key] = value
        return value


def _unquote(match: re.Match[str]) -> str:
    """A quotation is a value, but for a request line, which keeps its method, and a field that holds the message."""
    if match["field"]:
        return f"{match['field'].strip(_FIELD_MARKS)}: {match['text']}"
    quoted = match["double"] or match["single"] or ""
    method = _REQUEST_LINE.match(quoted)
    return (f'"{method[0]} <*>"' if method else WILDCARD) + (match["colon"] or "")


def _unquote_json(match: re.Match[str]) -> str:
    """As `_unquote`, but keys are kept."""
    if match["colon"] and not match["field"]:
        return f"{match['double'] or match['single'] or ''}:"
    return _unquote(match)


# --- 3. context -----------------------------------------------------------------------------------------------------

_BEFORE_USER = _words("for by as from to invalid unknown illegal")
_BEFORE_FOR = _words("password publickey keyboard-interactive authentication failure failures login logon")
_NOT_A_NAME = _words("user invalid unknown illegal the a an")
_NAME = re.compile(r"[^\s,;:()\[\]<>]+")
_ASSIGNED = re.compile(r"(?:(?<=[\w)\]>] =)|(?<=[\w)\]>]=)) [^\s,;:()\[\]{}<>=]++(?!=)")
_UNIT = re.compile(
    r"<\*> ?(?:[kKMGTP]?i?[Bb]|[kKMGTP]?[Bb]ytes?|[kmunµ]?s|[Mm]?secs?|(?:milli|micro|nano)?seconds?|mins?|minutes?"
    r"|hrs?|hours?|days?|%)(?![-\w/])"
)
_RUN = re.compile(r"<\*>(?:[-\s+.,:;/\\@|%#~_^$&*]*+<\*>)+")


def _mask_names(text: str, marker: str, before: frozenset[str], stop: frozenset[str]) -> str:
    """Mask the word after the marker where a certain word stands before it."""
    head, *rest = text.split(marker)
    for part in rest:
        name = _NAME.match(part)
        if name and head[head.rfind(" ") + 1 :].lower() in before and name[0] not in stop:
            head += marker + WILDCARD + part[name.end() :]
        else:
            head += marker + part
    return head


def _in_context(text: str) -> str:
    """Apply the rules that need more than one token."""
    if " user " in text:
        text = _mask_names(text, " user ", _BEFORE_USER, frozenset())
    if " for " in text:
        text = _mask_names(text, " for ", _BEFORE_FOR, _NOT_A_NAME)
    if "= " in text:
        text = _ASSIGNED.sub(" <*>", text)
    if WILDCARD in text:
        text = _UNIT.sub(WILDCARD, text)
        if text.count(WILDCARD) > 1:
            text = _RUN.sub(WILDCARD, text)
    return text[:MAX_TEMPLATE]


def _line(key: bytes, masks: Mapping[str, str]) -> str:
    """The tokens of a message without digits, each masked by itself, on one line."""
    # A character cut in two at the end and lone surrogates are left out.
    text = key[:MAX_BYTES].decode("utf-8", "ignore")
    # A message that is a JSON object is told by its keys; inside other text an object is a value.
    is_json = text.startswith(('{"', "{'", '{ "', "{\n"))
    if "\x1b" in text:
        text = _COLOUR.sub("", text)
    if '"' in text or "'" in text or "`" in text:
        text = _QUOTED.sub(_unquote_json if is_json else _unquote, text)
    if "{" in text:
        head, text = (text[0], text[1:]) if is_json else ("", text)
        for _ in range(_DEPTH):
            text, n = _BRACES.subn(WILDCARD, text)
            if not n:
                break
        text = head + text
    tokens = text.split(None, MAX_TOKENS)
    return " ".join(map(masks.__getitem__, tokens[:MAX_TOKENS]))


def template_of(message: str) -> str:
    """The message with `<*>` for its variable parts: the key, as a pure function of the message.

    It serves for a format string too: placeholders such as `%s` stay, the string's own numbers and names are masked,
    and `<*>` stays `<*>`.
    """
    return _in_context(_line(_fold_late(_fold(_zeros(message)[:_READ])), _MASKS))


class TextPatterns:
    """The pattern of each message, in bounded memory.

    A call returns the pattern of `template_of(message)`, and the same object for the same pattern, with one
    exception, the guard against cardinality, which depends on what came before:

    - It sleeps until there are `guard_from` patterns. From then on, once `max_variants` new ones differ only in the
      same one of the first 16 words, the next get the pattern with `<*>` in that place. Known ones keep theirs.
    - Once there are `max_patterns`, further ones become `OVERFLOW`.

    Patterns are never forgotten, so one that was seen keeps its id for good.

    Attributes:
        find: The call itself as a plain function, for the hot path: the interpreter calls it faster than an instance.

    Threads may call it at the same time: each step is one dict operation, atomic under the GIL (and under the dict's
    own lock on a free-threaded build), `setdefault` decides which of two equal patterns stays, and a race on the counts
    of the guard moves its limits by no more than the number of threads.
    """

    __slots__ = (
        "_by_fold",
        "_by_line",
        "_guard_from",
        "_masks",
        "_max_patterns",
        "_max_variants",
        "_merged",
        "_patterns",
        "_variants",
        "find",
    )

    find: Callable[[str], Pattern]

    def __init__(self, max_patterns: int = 4096, *, max_variants: int = 64, guard_from: int = 256) -> None:
        """Start without patterns.

        Args:
            max_patterns: patterns to tell apart; further ones are `OVERFLOW`.
            max_variants: patterns that may differ in the same one word before further ones are merged.
            guard_from: patterns below which nothing is merged.
        """
        self._max_patterns = max_patterns
        self._max_variants = max_variants
        self._guard_from = guard_from
        self._patterns: dict[str, Pattern] = {}
        self._merged: dict[int, Pattern] = {}
        self._variants: dict[int, int] = {}
        self._masks = _Memo(_mask, 8192, 64)
        self._by_line: dict[str, Pattern] = {}
        self._by_fold: dict[bytes, Pattern] = {}
        # A known message with a number of another length, or with another UUID, misses here and hits in `_by_fold`.
        answers = _Memo(self._look, 8192, _MAX_KEY)
        zeros = _ZEROS

        def find(message: str) -> Pattern:
            """The pattern of the message."""
            try:
                return answers[message.encode().translate(zeros)]
            except UnicodeEncodeError:  # a lone surrogate
                return answers[_zeros(message)]

        self.find = find

    def __call__(self, message: str) -> Pattern:
        """The pattern of the message."""
        return self.find(message)

    def __len__(self) -> int:
        """How many patterns are known."""
        return len(self._patterns)

    def __repr__(self) -> str:
        return f"<TextPatterns {len(self._patterns)}/{self._max_patterns} patterns>"

    def _look(self, key: bytes) -> Pattern:
        folded = _fold(key[:_READ])
        pattern = self._by_fold.get(folded)
        if pattern is None:
            pattern = self._look_late(_fold_late(folded))
            _remember(self._by_fold, folded, pattern)
        return pattern

    def _look_late(self, folded: bytes) -> Pattern:
        pattern = self._by_fold.get(folded)
        if pattern is None:
            line = _line(folded, self._masks)
            pattern = self._by_line.get(line)
            if pattern is None:
                pattern = self._of_template(_in_context(line))
                _remember(self._by_line, line, pattern)
            _remember(self._by_fold, folded, pattern)
        return pattern

    def _of_template(self, template: str) -> Pattern:
        pattern = self._patterns.get(template)
        if pattern is None and len(self._patterns) >= self._guard_from:
            pattern = self._guard(template)
        if pattern is None and len(self._patterns) >= self._max_patterns:
            pattern = OVERFLOW
        return pattern or self._patterns.setdefault(template, pattern_of(template))

    def _guard(self, template: str) -> Pattern | None:
        """The merged pattern, if too many differ from the template in one and the same word."""
        words = template.split(" ")
        # What is left of a template without one word, as a number: the sum over its words, less that word's part.
        # Collisions could only merge a little early.
        parts = [hash(word) * (2 * i + 1) for i, word in enumerate(words[:_GUARDED])]
        whole = sum(parts) + hash((len(words), *words[_GUARDED:]))
        rests = [whole - part for part in parts]
        for rest in rests:
            if rest in self._merged:
                return self._merged[rest]
        if len(self._patterns) >= self._max_patterns:
            return None
        if len(self._variants) > _MAX_COUNTS:
            self._variants.clear()
        for i, rest in enumerate(rests):
            count = self._variants[rest] = self._variants.get(rest, 0) + 1
            if count > self._max_variants and words[i] != WILDCARD:
                wider = _in_context(" ".join((*words[:i], WILDCARD, *words[i + 1 :])))
                return self._merged.setdefault(rest, self._of_template(wider))
        return None


def _remember(memory: dict[K, Pattern], key: K, pattern: Pattern) -> None:
    if len(key) <= _MAX_KEY:
        if len(memory) >= 4096:
            memory.clear()
        memory[key] = pattern


_READ = 8 * MAX_BYTES  # bytes looked at before numbers are folded
_MAX_KEY = 512  # bytes or characters of a message that is remembered
_GUARDED = 16  # words of a template that the guard looks at
_MAX_COUNTS = 32768
_MASKS = _Memo(_mask, 4096, 64)
