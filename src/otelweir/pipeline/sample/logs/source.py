"""The template that a logging call carries: in its format string, or in the source line that makes it.

A record with arguments carries its format string. A record without them comes from a line of source, whose call is
read once: a constant is its own template; an f-string, `"..." % x`, `"...".format(x)` and sums of these give their
literal parts with `<*>` between. A message that is a variable has no template here, nor has a call that cannot be told
from others on its line.
"""

from __future__ import annotations

import ast
import linecache
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from types import CodeType
from typing import Final

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
        if self.constant:
            return message == self.template or len(self.template) >= MAX_TEMPLATE
        head, *rest = self.template.split(WILDCARD)
        if not message.startswith(head):
            return False
        at = len(head)
        for part in rest:
            found = message.find(part, at)
            if found < 0:
                return len(self.template) >= MAX_TEMPLATE
            at = found + len(part)
        return True


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


def call_of(code: CodeType, instruction: int) -> ast.Call | None:
    """The call that an instruction of a code object makes.

    Args:
        code: The code of the calling frame.
        instruction: Its `f_lasti`.

    Source: PEP 657 gives the instruction's place in the source.
    """
    line, end_line, column, end_column = next(
        islice(code.co_positions(), instruction // 2, None), (None, None, None, None)
    )
    if line is None or end_line is None or column is None or end_column is None or end_line - line >= _MAX_LINES:
        return None
    lines = [linecache.getline(code.co_filename, number).encode() for number in range(line, end_line + 1)]
    # Columns count bytes. The end first: on a single line the start would move it.
    lines[-1] = lines[-1][:end_column]
    lines[0] = lines[0][column:]
    return _expression(b"".join(lines).decode(errors="replace"))


def call_at(path: str, line: int) -> ast.Call | None:
    """The logging call that begins on a line; None where there is none, or more than one."""
    source = ""
    for number in range(line, line + _MAX_LINES):
        more = linecache.getline(path, number)
        if not more:
            return None
        source += more
        calls = list(_logging_calls(source))
        if calls:
            return calls[0] if len(calls) == 1 else None
    return None


def ambiguous(path: str, line: int) -> bool:
    """Whether several logging calls share a line, so that a record's line does not tell which one made it."""
    return len(_CALL.findall(linecache.getline(path, line))) > 1


def template_of_call(call: ast.Call) -> SourceTemplate | None:
    """The template of the message that a logging call passes; None when the message is a variable."""
    parts = _parts(message) if (message := _message(call)) is not None else None
    if parts is None:
        return None
    text = _tidy("".join(WILDCARD if part is None else part for part in parts))
    constant = None not in parts
    # Nothing literal: the line passes on a message that was made elsewhere.
    return SourceTemplate(text, constant) if constant or text.replace(WILDCARD, "").strip() else None


def _message(call: ast.Call) -> ast.expr | None:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    place = 1 if name in _LEVEL_FIRST else 0
    if any(isinstance(argument, ast.Starred) for argument in call.args[: place + 1]):
        return None
    if place < len(call.args):
        return call.args[place]
    return next((keyword.value for keyword in call.keywords if keyword.arg in ("msg", "event", "message")), None)


def _parts(node: ast.expr) -> list[str | None] | None:
    """The literal parts of a message, None for each variable one; None altogether when it is not a literal at all."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=values):
            return [value.value if isinstance(value, ast.Constant) else None for value in values]  # type: ignore[misc]
        case ast.BinOp(op=ast.Mod(), left=left):
            return _formatted(_parts(left), percent_template)
        case ast.Call(func=ast.Attribute(attr="format", value=value)):
            return _formatted(_parts(value), brace_template)
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            before, after = _parts(left), _parts(right)
            if before is None and after is None:
                return None
            return [*(before or [None]), *(after or [None])]
    return None


def _formatted(parts: list[str | None] | None, template: Callable[[str], str]) -> list[str | None] | None:
    if parts is None:
        return None
    found: list[str | None] = []
    for part in parts:
        if part is None:
            found.append(None)
            continue
        pieces = template(part).split(WILDCARD)
        found.append(pieces[0])
        for piece in pieces[1:]:
            found += [None, piece]
    return found


def _expression(source: str) -> ast.Call | None:
    try:
        node = ast.parse(f"({source}\n)", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if isinstance(node, ast.Await):
        node = node.value
    return node if isinstance(node, ast.Call) else None


def _logging_calls(source: str) -> Iterator[ast.Call]:
    """The logging calls that begin on the first line of a piece of source, if it is complete."""
    text = textwrap.dedent(source)
    try:
        # A line may be a clause whose body is on the same line, or end in an opening one.
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr=name, end_lineno=1)) if name in _METHODS:
                yield node


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


def origin_of(path: str, function: str | None) -> Sequence[str]:
    """Where a call is, in words that stay the same on every machine: the file's name and the function's.

    Neither folders nor line numbers: an id would change with the install path and with each edit above the line.
    """
    stem = re.split(r"[/\\]", path)[-1].removesuffix(".py")
    return (stem, function or "")
