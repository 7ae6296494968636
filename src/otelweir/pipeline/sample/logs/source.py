"""The template that a logging call carries: in its format string, or in the source that makes it.

A record with arguments carries its format string. A record without them comes from a line of source, whose call is
read once: a constant is its own template; an f-string, `"..." % x`, `"...".format(x)` and sums of these give their
literal parts with `<*>` between. A choice (`a if x else b`, `a or b`) and a name that was assigned several times give
several messages; which one a record has is told by its text.

A message that the function got as a parameter is read where it was passed: the function is a wrapper around the logger,
and its caller says what the message is. So is a parameter with a message's name (`msg`, `text`, ...) that makes part of
a message, as in `"[chan 1] " + msg`.

What remains is a value and has no template here, nor has a call that cannot be told from others on its line.
"""

from __future__ import annotations

import ast
import linecache
import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, product
from types import CodeType
from typing import Any, Final, TypeAlias

from otelweir.pipeline.sample.logs.pattern import WILDCARD

MAX_TEMPLATE: Final = 1024
"""Characters of a template; the rest is cut."""

_LEVELS: Final = (
    *("trace", "debug", "info", "success", "notice", "warning", "warn"),
    *("error", "exception", "critical", "fatal", "log", "msg"),
)
_METHODS: Final = frozenset((*_LEVELS, *(f"a{name}" for name in _LEVELS), "_log"))
"""Names of logging calls, in `logging`, structlog and Loguru."""

_LEVEL_FIRST: Final = frozenset({"log", "alog", "_log"})

_CALL: Final = re.compile(rf"\.(?:{'|'.join(sorted(_METHODS))})\s*\(")

_PERCENT: Final = re.compile(r"%(?:(%)|(?:\([^)]*\))?[#0\- +]*(?:\*|\d+)?(?:\.(?:\*|\d+))?[hlL]?[diouxXeEfFgGcrsa])")
_BRACES: Final = re.compile(r"(\{\{|\}\})|\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")
_WILDCARDS: Final = re.compile(f"(?:{re.escape(WILDCARD)}){{2,}}")

_MAX_LINES: Final = 60
"""Lines that one logging call may span."""

_MAX_FILE: Final = 2**20
"""Bytes of a file that is read. A larger one was generated, and reading it would take the application's time."""

_MAX_FILES: Final = 8
"""Files remembered. Calls that are seen for the first time come from few files at a time."""

_LONG_FILE: Final = 5000
"""Lines of a file that is remembered alone."""

_MAX_VALUE_LINES: Final = 20
"""Lines that the value of a name may span."""

_MAX_CHOICES: Final = 8
"""Messages that one call may choose from."""

_MAX_DEPTH: Final = 6
"""Names and operators that are followed to find a message."""

_LEAST: Final = 4
"""Letters that make literal text recognizable within a longer message."""

_ATTEMPTS: Final = 3
"""How often a piece of source is parsed, where another thread comes between."""

_TRANSLATE: Final = frozenset(
    ("_", "__", "N_", "gettext", "ngettext", "pgettext", "gettext_lazy", "ngettext_lazy", "ugettext", "lgettext")
)
_MESSAGE_NAMES: Final = frozenset(("msg", "message", "text", "fmt", "format", "template", "event"))
_ODD_ESCAPE: Final = re.compile(r"(?<!\\)(?:\\\\)*\\(?:[^\n\r\\'\"abfnrtvxNuU0-7]|[4-7][0-7][0-7])")
_NAMED: Final = re.compile(rf"\W*?{re.escape(WILDCARD)}[-.\w]")
_DEFINITION: Final = re.compile(r"(?:(?:async\s+)?def|class)\s+(\w+)")
_BLOCK: Final = re.compile(r"(?:async|class|def|if|elif|else|for|while|with|try|except|finally|match|case)\b")


@dataclass(frozen=True, slots=True)
class SourceTemplate:
    """What a source line says about its message.

    Attributes:
        template: The message with `<*>` for its variable parts.
        constant: Whether there are none.
    """

    template: str
    constant: bool

    def matches(self, message: str) -> bool:
        """Whether a message can have been made by this call."""
        if len(self.template) >= MAX_TEMPLATE:
            return True  # its end is not known
        if self.constant:
            return message == self.template
        head, *between, tail = self.template.split(WILDCARD)
        if not message.startswith(head):
            return False
        at = _after(between, message, len(head))
        return at >= 0 and len(message) - len(tail) >= at and message.endswith(tail)

    def within(self, message: str) -> bool:
        """Whether a message has this one within it, as an adapter that adds a prefix makes them."""
        if self.constant and "%" in self.template and message.endswith(self.template):
            return True
        if _letters(self.template) < _LEAST:
            return False
        if self.constant:
            return self.template in message
        head, *between, tail = self.template.split(WILDCARD)
        if _letters(head) < _LEAST and not (tail.strip() and message.endswith(tail)):
            return False  # it begins with a value, which fits anything
        return _after([head, *between, tail], message, 0) >= 0


def _after(parts: Sequence[str], message: str, at: int) -> int:
    """Where the last of these parts ends, if they follow each other from some place on; else -1."""
    for part in parts:
        found = message.find(part, at)
        if found < 0:
            return -1
        at = found + len(part)
    return at


@dataclass(frozen=True, slots=True)
class Passed:
    """A part of a message that the caller of the function passed.

    Attributes:
        name: The parameter.
        place: Of it in the parameter, if that is `*args`; else -1.
        style: What the function does with it: `%`, `{` or nothing.
    """

    name: str
    place: int = -1
    style: str = ""


Part: TypeAlias = "str | Passed | None"
Parts: TypeAlias = "tuple[Part, ...]"
"""A message: its literal text, None for each value between, and what the caller passed."""

_VALUE: Final[Parts] = (None,)

_UNKNOWN: Final = Passed("")
"""What a caller passed that is a value to it, too, and what a name may be besides what is known."""


def percent_template(text: str) -> str:
    """The template of a %-style format string.

    >>> percent_template("%s took %.1f ms (100%%)")
    '<*> took <*> ms (100%)'
    """
    return _tidy(_PERCENT.sub(lambda found: "%" if found[1] else WILDCARD, text[: 4 * MAX_TEMPLATE]))


def brace_template(text: str) -> str:
    """The template of a {}-style format string.

    >>> brace_template("{user} took {0:.1f} ms {{sic}}")
    '<*> took <*> ms {sic}'
    """
    return _tidy(_BRACES.sub(lambda found: found[1][0] if found[1] else WILDCARD, text[: 4 * MAX_TEMPLATE]))


# --- files ----------------------------------------------------------------------------------------------------------

_files: dict[str, Sequence[str]] = {}
"""The files read last. `linecache` keeps every file for good, which in a large application is more than its records."""


def lines_of(path: str, module: dict[str, Any] | None = None) -> Sequence[str]:
    """The lines of a file; none when there is no source.

    Args:
        path: As the code names it, which may be no file: notebooks and shells keep their input in `linecache`.
        module: The module's globals, which lead to a source in an archive.
    """
    lines = _files.get(path)
    if lines is None:
        known = path in linecache.cache
        lines = linecache.getlines(path, module) if known or not _huge(path) else ()
        if lines and not known:
            linecache.cache.pop(path, None)
            if len(_files) >= _MAX_FILES or len(lines) > _LONG_FILE:
                _files.clear()
            _files[path] = lines
    return lines


def _huge(path: str) -> bool:
    try:
        return os.stat(path).st_size > _MAX_FILE  # noqa: PTH116 - a path need not be one; on the application's thread
    except (OSError, ValueError):
        return False


class Scope:
    """Where a call stands in its file: in which function, and what names mean there.

    Read by indentation, not by a syntax tree of the whole file, which takes milliseconds. Text in triple quotes that
    looks like code may mislead it; a message that does not fit what was found has no template.
    """

    __slots__ = ("_code", "_first", "_following", "_line", "_lines", "_names", "_parameters")

    def __init__(self, lines: Sequence[str], line: int, code: CodeType | None = None) -> None:
        """
        Args:
            lines: Of the file.
            line: Of the call, from 1.
            code: Of the function, if it is known.
        """
        self._lines = lines
        self._line = line
        self._code = code
        self._first = -1
        self._names: tuple[str, ...] = ()
        self._parameters: tuple[str, ...] | None = None
        self._following: set[str] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes and functions around the call, outermost first."""
        self._look_around()
        return self._names

    @property
    def parameters(self) -> tuple[str, ...]:
        """Of the function."""
        if self._parameters is None:
            if self._code is not None:
                self._parameters = _parameters(self._code)
            else:
                first = self._look_around()
                self._parameters = _signature(self._lines, first) if first else ()
        return self._parameters

    def _look_around(self) -> int:
        """The line after which the function's body begins; 0 for a module. Most calls need not know."""
        if self._first < 0:
            self._first, self._names = _definitions(self._lines, self._line)
        return self._first

    def assigned(self, name: str) -> Iterator[ast.expr]:
        """What is assigned to a name before the call in its function, else in the module."""
        if name in self._following:  # a value that is made of the one before
            return
        self._following.add(name)
        yield from self._assigned(name)
        self._following.discard(name)

    def _assigned(self, name: str) -> Iterator[ast.expr]:
        pattern = re.compile(rf"(?:^|:|;)\s*{re.escape(name)}\s*(?::[^=]+)?=(?!=)\s*")
        found = False
        for number in range(self._look_around(), min(self._line, len(self._lines))):
            text = self._lines[number]
            if (
                name in text
                and "=" in text
                and (match := pattern.search(text))
                and (node := self._value(number, match.end()))
            ):
                found = True
                yield node
        if found or name in self.parameters:
            return
        for number, text in enumerate(self._lines):
            if text.startswith(name) and (match := pattern.match(text)) and (node := self._value(number, match.end())):
                yield node

    def _value(self, number: int, column: int) -> ast.expr | None:
        """The expression that begins at a place, numbers from 0."""
        source = self._lines[number][column:]
        for more in range(number + 1, number + _MAX_VALUE_LINES):
            if (node := _expression(source)) is not None:
                return node
            if more >= len(self._lines) or not any(opening in source for opening in ("(", "[", '"""', "'''")):
                return None
            source += self._lines[more]
        return None


def _definitions(lines: Sequence[str], line: int) -> tuple[int, tuple[str, ...]]:
    """The line after which the function's body begins, 0 for a module, and the names around it, outermost first."""
    names: list[str] = []
    first = 0
    indent: int | None = None
    for number in range(min(line, len(lines)) - 1, -1, -1):
        text = lines[number]
        code = text.lstrip()
        if not code or code[0] in "#)]}":
            continue
        column = len(text) - len(code)
        if indent is None:
            indent = column
            if not (definition := _DEFINITION.match(code)):
                continue
        elif column >= indent or not _BLOCK.match(code):
            continue
        else:
            definition = _DEFINITION.match(code)
        indent = column
        if definition:
            if not first and code[0] != "c":
                first = number + 1
            names.append(definition[1])
        if not column:
            break
    return first, tuple(reversed(names))


def _parameters(code: CodeType) -> tuple[str, ...]:
    count = code.co_argcount + code.co_kwonlyargcount
    return code.co_varnames[: count + bool(code.co_flags & 0x04)]


def _signature(lines: Sequence[str], first: int) -> tuple[str, ...]:
    """The parameters of the function whose `def` is on the line before."""
    source = ""
    for text in lines[first - 1 : first - 1 + _MAX_LINES]:
        source += text.strip() + "\n"
        if text.split("#")[0].rstrip().endswith(":"):
            tree = _parse(source + " pass")
            if tree is None:
                continue
            function = tree.body[0]
            if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                break
            named = function.args
            star = [named.vararg] if named.vararg else []
            return tuple(one.arg for one in (*named.posonlyargs, *named.args, *named.kwonlyargs, *star))
    return ()


# --- calls ----------------------------------------------------------------------------------------------------------


def call_of(code: CodeType, instruction: int, module: dict[str, Any] | None = None) -> ast.Call | None:
    """The call that an instruction of a code object makes.

    Args:
        code: The code of the calling frame.
        instruction: Its `f_lasti`.
        module: Its globals.

    Source: PEP 657 gives the instruction's place in the source.
    """
    line, end_line, column, end_column = next(
        islice(code.co_positions(), instruction // 2, None), (None, None, None, None)
    )
    if line is None or end_line is None or column is None or end_column is None or end_line - line >= _MAX_LINES:
        return None
    lines = [text.encode() for text in lines_of(code.co_filename, module)[line - 1 : end_line]]
    if len(lines) <= end_line - line:
        return None
    # Columns count bytes. The end first: on a single line the start would move it.
    lines[-1] = lines[-1][:end_column]
    lines[0] = lines[0][column:]
    node = _expression(b"".join(lines).decode(errors="replace"))
    if isinstance(node, ast.Await):
        node = node.value
    return node if isinstance(node, ast.Call) else None


def call_at(path: str, line: int) -> ast.Call | None:
    """The logging call that begins on a line; None where there is none, or more than one."""
    source = ""
    for more in lines_of(path)[max(line - 1, 0) : line - 1 + _MAX_LINES]:
        source += more
        calls = list(_logging_calls(source))
        if calls:
            return calls[0] if len(calls) == 1 else None
    return None


def ambiguous(path: str, line: int) -> bool:
    """Whether several logging calls share a line, so that a record's line does not tell which one made it."""
    text = "".join(lines_of(path)[max(line - 1, 0) : line])
    return len(_CALL.findall(text)) > 1


def messages_of_call(call: ast.Call, scope: Scope | None = None) -> list[Parts]:
    """The messages that a logging call may pass; none when the message is a value.

    More than one, of which some may be unknown, when a name or a condition stands for the message. If it is one alone,
    every record of the call has it.
    """
    return _message(call, scope)


def messages_passed(messages: Sequence[Parts], call: ast.Call | None, function: CodeType, scope: Scope) -> list[Parts]:
    """The messages of a function, with what a caller passed for its parameters put in.

    Args:
        messages: The messages that the function may pass on.
        call: The call of the function.
        function: The code of the function.
        scope: Where the call stands.
    """
    found: list[Parts] = []
    for message in messages:
        choices: list[list[Parts]] = [
            _passed(part, call, function, scope) or [(_UNKNOWN,)] if isinstance(part, Passed) else [(part,)]
            for part in message
        ]
        found += _sums(choices)
    return found[:_MAX_CHOICES]


def needs_caller(message: Parts) -> bool:
    """Whether a part of the message is known to the function's caller only."""
    return any(isinstance(part, Passed) and part.name for part in message)


def template_of(message: Parts, *, by_caller: bool = False) -> SourceTemplate | None:
    """The template of a message; None when too little of it is literal.

    Args:
        message: What a call passes.
        by_caller: Whether a wrapper passes it on. Then a value that it begins with may be the name of what happens, as
            in `f"{name}.started"`, and templates that tell no more would hide one message in another.
    """
    text = _tidy("".join(part if isinstance(part, str) else WILDCARD for part in message))
    if all(isinstance(part, str) for part in message):
        return SourceTemplate(text, True)
    literal = text.replace(WILDCARD, "")
    # Nothing literal: the line passes on a message that was made elsewhere.
    if not literal.strip():
        return None
    if any(isinstance(part, Passed) for part in message) or (by_caller and _NAMED.match(text)):
        least = 4 * _LEAST
    else:
        least = _LEAST if by_caller else 0
    return SourceTemplate(text, False) if _letters(literal) >= least else None


def _message(call: ast.Call, scope: Scope | None) -> list[Parts]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    place = 1 if name in _LEVEL_FIRST else 0
    return _argument(call, place, ("msg", "event", "message"), scope)


def _argument(call: ast.Call, place: int, names: Sequence[str], scope: Scope | None) -> list[Parts]:
    """The texts that a call passes at a place, or by a name."""
    if place < 0:  # the object itself
        return []
    for at, argument in enumerate(call.args[: place + 1]):
        if isinstance(argument, ast.Starred):
            if scope is not None and isinstance(argument.value, ast.Name) and argument.value.id in scope.parameters:
                return [(Passed(argument.value.id, place - at),)]
            return []
    if place < len(call.args):
        return _texts(call.args[place], scope)
    for keyword in call.keywords:
        if keyword.arg in names:
            return _texts(keyword.value, scope)
    return []


def _passed(part: Passed, call: ast.Call | None, function: CodeType, scope: Scope) -> list[Parts]:
    """The texts that a call of a function passes for its parameter."""
    if call is None:
        return []
    places = function.co_varnames[: function.co_argcount]
    bound = 1 if places[:1] in (("self",), ("cls",)) else 0
    if part.place >= 0:
        found = _argument(call, len(places) - bound + part.place, (), scope)
    elif part.name in places:
        found = _argument(call, places.index(part.name) - bound, (part.name,), scope)
    else:
        found = _argument(call, len(call.args), (part.name,), scope)
    return [_styled(message, part.style) for message in found]


def _texts(node: ast.expr, scope: Scope | None, depth: int = 0) -> list[Parts]:
    """What a message may be, as its parts; nothing when it is a value."""
    if depth > _MAX_DEPTH:
        return []
    deeper = depth + 1
    match node:
        case ast.Constant(value=str(text)):
            return [(text,)]
        case ast.JoinedStr(values=values):
            return [tuple(_part(value, scope) for value in values)]
        case ast.BinOp(op=ast.Mod(), left=left):
            return [_styled(message, "%") for message in _texts(left, scope, deeper)]
        case ast.Call(func=ast.Attribute(attr="format", value=value)):
            return [_styled(message, "{") for message in _texts(value, scope, deeper)]
        case ast.Call(func=ast.Attribute(attr="strip" | "lstrip" | "rstrip" as name, value=value), args=[]):
            return [_stripped(message, name) for message in _texts(value, scope, deeper)]
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            before, after = _summand(left, scope, deeper), _summand(right, scope, deeper)
            return _sums([before or [_VALUE], after or [_VALUE]]) if before or after else []
        case ast.IfExp(body=one, orelse=other):
            return _choices((one, other), scope, deeper)
        case ast.BoolOp(values=operands):
            return _choices(operands, scope, deeper)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[first, *more]) if name in _TRANSLATE:
            plural = more[:1] if name.startswith("ngettext") else []
            return [message for each in (first, *plural) for message in _texts(each, scope, deeper)]
        case ast.Name(id=name) if scope is not None:
            passed: list[Parts] = [(Passed(name),)] if name in scope.parameters else []
            found = _choices(list(scope.assigned(name)), scope, deeper)
            # Names get values in more ways than by `=`.
            return [*passed, *dict.fromkeys((*found, (_UNKNOWN,)))][:_MAX_CHOICES] if passed or found else []
    return []


def _choices(nodes: Sequence[ast.expr], scope: Scope | None, depth: int) -> list[Parts]:
    """What any of these may be; nothing when all are values."""
    found = [_texts(node, scope, depth) for node in nodes]
    if not any(found):
        return []
    return [message for messages in found for message in messages or [(_UNKNOWN,)]][:_MAX_CHOICES]


def _part(value: ast.expr, scope: Scope | None) -> Part:
    """A part of an f-string."""
    match value:
        case ast.Constant(value=str(text)):
            return text
        case ast.FormattedValue(value=ast.Name(id=name), format_spec=None) if name in _MESSAGE_NAMES:
            return Passed(name) if scope is not None and name in scope.parameters else None
    return None


def _summand(node: ast.expr, scope: Scope | None, depth: int) -> list[Parts]:
    """As `_texts`, for a part of a sum, where a name is a value, unless it is a message's."""
    if isinstance(node, ast.Name) and node.id not in _MESSAGE_NAMES:
        return []
    return _texts(node, scope, depth)


def _sums(choices: Sequence[Sequence[Parts]]) -> list[Parts]:
    return [
        tuple(part for message in messages for part in message) for messages in islice(product(*choices), _MAX_CHOICES)
    ]


def _styled(message: Parts, style: str) -> Parts:
    """What formatting makes of a message."""
    if not style:
        return message
    template = percent_template if style == "%" else brace_template
    found: list[Part] = []
    for part in message:
        if part is None:
            found.append(None)
        elif isinstance(part, Passed):
            found.append(Passed(part.name, part.place, style) if part.name and not part.style else _UNKNOWN)
        else:
            pieces = template(part).split(WILDCARD)
            found.append(pieces[0])
            for piece in pieces[1:]:
                found += [None, piece]
    return tuple(found)


def _stripped(message: Parts, method: str) -> Parts:
    parts = list(message)
    for end, strip in ((0, str.lstrip), (-1, str.rstrip)):
        part = parts[end]
        if method in ("strip", strip.__name__) and isinstance(part, str):
            parts[end] = strip(part)
    return tuple(parts)


def _expression(source: str) -> ast.expr | None:
    tree = _parse(f"({source.strip()}\n)")
    body = tree.body if tree is not None else []
    return body[0].value if len(body) == 1 and isinstance(body[0], ast.Expr) else None


def _parse(source: str) -> ast.Module | None:
    """The syntax tree; None where there is none, and where the parser would print a warning of its own."""
    if "\\" in source and _ODD_ESCAPE.search(source):
        return None
    for _ in range(_ATTEMPTS):
        try:
            return ast.parse(source)
        except SystemError:
            continue  # the parser of CPython 3.11 counts the depth of all threads together
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            break
    return None


def _logging_calls(source: str) -> Iterator[ast.Call]:
    """The logging calls that begin on the first line of a piece of source, if it is complete."""
    # A line may be a clause whose body is on the same line, or end in an opening one.
    tree = _parse(textwrap.dedent(source))
    if tree is None:
        return
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr=name, end_lineno=1)) if name in _METHODS:
                yield node


def _letters(template: str) -> int:
    """How many letters of a template are its own."""
    return sum(map(str.isalpha, percent_template(template)))


def _tidy(template: str) -> str:
    return _WILDCARDS.sub(WILDCARD, template)[:MAX_TEMPLATE]


def literal_message(value: object) -> str | None:
    """The template of a message object that carries its own format string, as {}-style adapters make them.

    Such an object has the format in `fmt`, `format`, `template` or `msg`, and renders itself with `str`; the cookbook
    of Python's logging shows one.
    """
    if type(value).__str__ is object.__str__:
        return None
    for name in ("fmt", "format", "template", "msg"):
        text = getattr(value, name, None)
        if isinstance(text, str):
            template = brace_template(text)
            return template if template != text or "%" not in text else percent_template(text)
    return None


def origin_of(path: str, function: str | None) -> tuple[str, str]:
    """Where a call is, in words that stay the same on every machine: the module and the function.

    Neither folders outside the package nor line numbers: an id would change with the install path and with each edit
    above the line. Neither `__name__`, which is `__main__` for a module that was started.

    Args:
        path: The file, as the code names it.
        function: The function's qualified name.
    """
    names = [name for name in (function or "").split(".") if not name.startswith("<")]
    return _module(path), ".".join(names)


@lru_cache(maxsize=256)
def _module(path: str) -> str:
    """The dotted name of a file's module, as far as folders are packages."""
    if path.startswith("<"):  # a shell's or notebook's input, which may be numbered
        return re.sub(r"[-_ ]?\d.*", ">", path)
    folder, _, name = path.replace("\\", "/").rpartition("/")
    names = [name.removesuffix(".py")]
    if names[0].isdecimal():  # a notebook's input as a file
        return ""
    while folder and len(names) < 16 and os.path.isfile(f"{folder}/__init__.py"):  # noqa: PTH113 - as in `_huge`
        folder, _, name = folder.rpartition("/")
        names.append(name)
    return ".".join(reversed(names))
