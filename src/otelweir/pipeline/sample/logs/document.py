"""A policy document, YAML or JSON, as plain values of which every one knows its line.

Scalars stay the text that was written: what `on`, `1e-3` or a pattern id of digits only means is for the key it is
given to, not for the rules of YAML 1.1, where they are a boolean, text and an octal number. So a value is text, a list,
a mapping, or None where nothing stands.

What comes in is bounded before it is looked at: the size, the nesting, the number of values, aliases included.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from json import JSONDecodeError, JSONDecoder
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from otelweir import errors

if TYPE_CHECKING:
    import yaml

Value: TypeAlias = "str | list[Value] | dict[str, Value] | None"
Path: TypeAlias = "tuple[str | int, ...]"

MAX_BYTES: Final = 2**20
"""The longest document that is read."""

MAX_DEPTH: Final = 16
MAX_VALUES: Final = 20_000
"""Values in a document; what an alias stands for counts again."""

MAX_PROBLEMS: Final = 50
"""How many problems are told; the others are counted."""


class Flaw(NamedTuple):
    """One problem of a document.

    Attributes:
        line: Counted from 1; None when the problem is of the whole.
        path: The keys and places that lead to it.
        words: What is wrong and what is allowed.
    """

    line: int | None
    path: Path
    words: str


@dataclass(slots=True)
class Document:
    """What was read.

    Attributes:
        name: How to call the document in messages.
        value: The outermost value.
        lines: The line of each value, by its path; aliases end a path.
        flaws: Problems that did not keep the rest from being read.
    """

    name: str
    value: Value = None
    lines: dict[Path, int] = field(default_factory=dict)
    flaws: list[Flaw] = field(default_factory=list)

    def line_of(self, path: Path) -> int | None:
        """The line of a value, or of the nearest one around it."""
        for length in range(len(path), -1, -1):
            if line := self.lines.get(path[:length]):
                return line
        return None

    def flawed(self, path: Path, words: str) -> None:
        self.flaws.append(Flaw(self.line_of(path), path, words))


def read(data: bytes, name: str) -> Document:
    """Read a document. JSON when the name says so or, without a telling name, when it begins with a brace.

    Args:
        data: The bytes of the file or the answer.
        name: A path or a URL; stands before every problem, and its ending tells the format.

    Raises:
        PolicyError: The document cannot be read at all. Lesser problems are in `flaws`.
    """
    if len(data) > MAX_BYTES:
        raise invalid(name, [Flaw(None, (), f"is longer than {MAX_BYTES:,} bytes")])
    text = _decoded(data, name)
    ending = name.lower().rpartition(".")[2]
    if not text.strip():
        raise invalid(name, [Flaw(None, (), "is empty; a policy that sets nothing is {}")])
    document = Document(name)
    try:
        if ending == "json" or (ending not in ("yaml", "yml") and text.lstrip().startswith("{")):
            document.value = _Json(text, document).whole()
        else:
            document.value = _Yaml(text, document).whole()
    except _Unreadable as error:
        raise invalid(name, [*document.flaws, error.flaw]) from None
    return document


def invalid(name: str, flaws: list[Flaw]) -> errors.PolicyError:
    """The error that tells all problems, one a line, in the order of the document."""
    flaws = sorted(flaws, key=lambda flaw: flaw.line or 0)
    lines = [
        f"{name}{f':{flaw.line}' if flaw.line else ''}: {f'{shown_path(flaw.path)}: ' if flaw.path else ''}{flaw.words}"
        for flaw in flaws[:MAX_PROBLEMS]
    ]
    if len(flaws) > MAX_PROBLEMS:
        lines.append(f"{name}: and {len(flaws) - MAX_PROBLEMS} more problems")
    return errors.PolicyError(errors.POLICY_INVALID, "\n".join(lines))


def shown_path(path: Path) -> str:
    """A path as one would say it: `rules[0].rate`."""
    said = ""
    for step in path:
        if isinstance(step, int):
            said += f"[{step}]"
        else:
            said += f"{'.' if said else ''}{step if step.isidentifier() and step.isascii() else shown(step)}"
    return said


def shown(value: Value) -> str:
    """A value, short and fit for a message."""
    match value:
        case None:
            return "nothing"
        case list():
            return "a list"
        case dict():
            return "a mapping"
    if re.fullmatch(r"[-+.\d][-+.\deE]{0,30}", value, re.ASCII):
        return value
    return ascii(value if len(value) <= 60 else f"{value[:57]}...")


class _Unreadable(Exception):
    def __init__(self, line: int | None, words: str, path: Path = ()) -> None:
        self.flaw = Flaw(line, path, words)


def _decoded(data: bytes, name: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise invalid(name, [Flaw(1, (), "is UTF-16; save it as UTF-8")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise invalid(name, [Flaw(line, (), f"byte 0x{data[error.start]:02x} is not UTF-8")]) from None


class _Reader:
    """What both formats share: bounds, lines, and keys given twice."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._values = 0

    def _begin(self, path: Path, line: int, values: int = 1) -> None:
        # A key's line stands already; the value may begin on a later one.
        self.document.lines.setdefault(path, line)
        self._values += values
        if self._values > MAX_VALUES:
            raise _Unreadable(line, f"has more than {MAX_VALUES:,} values")
        if len(path) > MAX_DEPTH:
            raise _Unreadable(line, f"is nested more than {MAX_DEPTH} deep")

    def _key(self, found: dict[str, Value], path: Path, line: int) -> bool:
        """Take note of a key; False if it was given before."""
        if path[-1] in found:
            first = self.document.lines[path]
            self.document.flaws.append(Flaw(line, path, f"is given twice; first in line {first}"))
            return False
        self.document.lines[path] = line
        return True


_STRINGS: Final = JSONDecoder()


class _Json(_Reader):
    """JSON as RFC 8259 has it. The standard library's reader tells no lines of values."""

    _SPACE: Final = re.compile(r"[ \t\r\n]*")
    _WORD: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?![\w.])|true\b|false\b|null\b")

    def __init__(self, text: str, document: Document) -> None:
        super().__init__(document)
        self._text = text
        self._at = 0
        self._counted_to = 0
        self._line = 1

    def whole(self) -> Value:
        value = self._value(())
        if self._next():
            raise self._broken("the document goes on after its end")
        return value

    def _next(self) -> str:
        """Skip space; the character that follows, empty at the end."""
        found = self._SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return self._text[self._at : self._at + 1]

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        return self._line

    def _broken(self, words: str) -> _Unreadable:
        column = self._at - self._text.rfind("\n", 0, self._at)
        return _Unreadable(self._here(), f"is not JSON: {words} (column {column})")

    def _value(self, path: Path) -> Value:
        sign = self._next()
        self._begin(path, self._here())
        if sign == "{":
            return self._mapping(path)
        if sign == "[":
            return self._list(path)
        if sign == '"':
            return self._string()
        word = self._WORD.match(self._text, self._at)
        if not word:
            raise self._broken("a value is missing" if sign in ("", ",", "}", "]", ":") else "this is not a value")
        self._at = word.end()
        return None if word[0] == "null" else word[0]

    def _mapping(self, path: Path) -> dict[str, Value]:
        found: dict[str, Value] = {}
        while True:
            self._at += 1  # the brace or the comma
            sign = self._next()
            if sign == "}" and not found:
                break
            if sign != '"':
                raise self._broken("a key in double quotes is missing")
            line = self._here()
            key = self._string()
            if self._next() != ":":
                raise self._broken("':' is missing after the key")
            self._at += 1
            fresh = self._key(found, (*path, key), line)
            value = self._value((*path, key))
            if fresh:
                found[key] = value
            if (sign := self._next()) == "}":
                break
            if sign != ",":
                raise self._broken("',' or '}' is missing")
        self._at += 1
        return found

    def _list(self, path: Path) -> list[Value]:
        found: list[Value] = []
        while True:
            self._at += 1  # the bracket or the comma
            if self._next() == "]" and not found:
                break
            found.append(self._value((*path, len(found))))
            if (sign := self._next()) == "]":
                break
            if sign != ",":
                raise self._broken("',' or ']' is missing")
        self._at += 1
        return found

    def _string(self) -> str:
        try:
            text, self._at = _STRINGS.raw_decode(self._text, self._at)
        except JSONDecodeError as error:
            self._at = error.pos
            raise self._broken(error.msg[:1].lower() + error.msg[1:].removesuffix(" at")) from None
        return str(text)


class _Yaml(_Reader):
    """YAML, from the events of the parser: nothing is constructed but text, lists and mappings."""

    _TAGS: Final = (None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "map", "seq")))

    def __init__(self, text: str, document: Document) -> None:
        super().__init__(document)
        try:
            import yaml
        except ImportError:
            raise errors.PolicyError(
                errors.MISSING_EXTRA,
                f"{document.name} is YAML and pyyaml is not installed: pip install 'otelweir[yaml]', or write JSON",
            ) from None
        self._yaml = yaml
        self._events = self._parsed(text)
        self._anchors: dict[str, tuple[Value, int]] = {}

    def _parsed(self, text: str) -> Iterator[Any]:
        try:
            # The C parser is ten times as fast and comes with the usual wheels.
            yield from self._yaml.parse(text, Loader=getattr(self._yaml, "CSafeLoader", self._yaml.SafeLoader))
        except self._yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise _Unreadable(line, f"is not YAML: the character {error.character!r} is not allowed") from None
        except self._yaml.YAMLError as error:
            raise _Unreadable(*_said_by_yaml(error, text)) from None
        except _Unreadable:
            raise
        except Exception as error:  # noqa: BLE001 - a foreign parser on foreign input: some escapes upset it
            raise _Unreadable(None, f"is not YAML: the parser gave up ({type(error).__name__})") from None

    def whole(self) -> Value:
        next(self._events)  # the stream begins
        if not isinstance(next(self._events), self._yaml.DocumentStartEvent):
            raise _Unreadable(None, "holds no policy, only comments; a policy that sets nothing is {}")
        value = self._value((), next(self._events))
        next(self._events)  # the document ends
        after = next(self._events)
        if not isinstance(after, self._yaml.StreamEndEvent):
            raise _Unreadable(after.start_mark.line + 1, "holds a second document; a policy is one")
        return value

    def _value(self, path: Path, event: Any) -> Value:
        yaml, line, before = self._yaml, event.start_mark.line + 1, self._values
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise _Unreadable(line, f"*{event.anchor} refers to nothing that ends before it", path)
            value, values = self._anchors[event.anchor]
            self._begin(path, line, values)
            return value
        self._begin(path, line)
        if event.tag not in self._TAGS and event.tag != "tag:yaml.org,2002:null":
            self.document.flaws.append(Flaw(line, path, f"the tag {shown(event.tag)} is not allowed"))
        if isinstance(event, yaml.ScalarEvent):
            empty = event.implicit[0] and event.value in ("", "~", "null", "Null", "NULL")
            value = None if empty else event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._list(path)
        else:
            value = self._mapping(path)
        if event.anchor is not None:
            self._anchors[event.anchor] = value, self._values - before
        return value

    def _list(self, path: Path) -> list[Value]:
        found: list[Value] = []
        while not isinstance(event := next(self._events), self._yaml.SequenceEndEvent):
            found.append(self._value((*path, len(found)), event))
        return found

    def _mapping(self, path: Path) -> dict[str, Value]:
        found: dict[str, Value] = {}
        while not isinstance(event := next(self._events), self._yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            if isinstance(event, self._yaml.ScalarEvent):
                key = str(event.value)
                fresh = self._key(found, (*path, key), line)
            else:
                key, fresh = "?", False
                self._value((*path, key), event)
                self.document.flaws.append(Flaw(line, path, "a key is text"))
            value = self._value((*path, key), next(self._events))
            if fresh:
                found[key] = value
        return found


def _said_by_yaml(error: yaml.YAMLError, text: str) -> tuple[int | None, str]:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    words = [part for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part]
    said = ", ".join(words) or "it cannot be read"
    lines = text.split("\n")
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        said += "; indent with spaces, not with tabs"
    column = f" (column {mark.column + 1})" if mark else ""
    return (mark.line + 1 if mark else None), f"is not YAML: {said}{column}"
