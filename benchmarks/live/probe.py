"""Runs one program with the bridge on and notes for each record the true group and the ones that were found.

    python probe.py NOTES PROGRAM

The program runs as `__main__`; sampling is in dry-run. Each record adds a line of JSON to the file NOTES.

Truth is the call site and its format string: (pathname, lineno, format). The format is

1. what the expression in the source says, if it is literal text with values in it, that is, a constant, an f-string,
   `%`, `.format`, `+`, or a choice among such, also in a call of gettext. Of several the one that fits the message
   counts. If the record has arguments and the expression is a constant, that is `record.msg`; with an adapter that adds
   a prefix to it, it is the constant without the prefix;
2. where the expression is a name: what was assigned to the name in the function, in the class or in the module, or, if
   it is a parameter, what the caller passed for it, and so on up the stack;
3. where that leads nowhere, or to nothing with a letter in it: `record.msg` if the record has arguments. Without them
   the message is a value, such as a statement in SQL or the text of an exception, and there is no true group. Such
   records are counted, and no more.

In a sum and in an f-string a name stands for a value, unless it is called a message (`msg`, `text`, ...).

It is found with the whole file's syntax tree and the live stack, and shares no code with the sampler.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import runpy
import string
import sys
import time
from itertools import islice, product
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeAlias

from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadWriteLogRecord

from otelweir.pipeline.capture import logging_bridge
from otelweir.pipeline.capture.otel import LogCapture
from otelweir.pipeline.sample.logs import source
from otelweir.pipeline.sample.logs.rules import Rules
from otelweir.pipeline.sample.logs.sampler import LogSampler
from otelweir.pipeline.sample.logs.stream import PATTERN_ID, Stream
from otelweir.signals import Severity, Verdict

Parts: TypeAlias = "tuple[str | None, ...]"
"""A message: literal parts, and None for each value."""

WILDCARD = "<*>"
VARIABLE = "(variable)"
LOGGING = logging.Logger.info.__code__.co_filename
MAX_DEPTH = 8

PERCENT = re.compile(r"%(?:(%)|(?:\(.*?\))?[-#0 +]*(?:\*|\d+)?(?:\.(?:\*|\d+))?[hlL]?[a-zA-Z])")
GETTEXT = {"_", "__", "gettext", "gettext_lazy", "lgettext", "ugettext", "N_"}
MESSAGES = {"msg", "message", "text", "fmt", "format", "template"}
LEVEL_FIRST = {"log", "_log"}


# --- the source -----------------------------------------------------------------------------------------------------


class Module:
    """One file's syntax tree, by position."""

    def __init__(self, path: str) -> None:
        self.calls: dict[tuple[int, int, int, int], ast.Call] = {}
        self.functions: dict[tuple[int, str], ast.AST] = {}
        self.assigned: dict[str, list[ast.expr]] = {}
        try:
            self.tree: ast.Module | None = parse(Path(path).read_bytes())
        except (OSError, SyntaxError, ValueError):
            self.tree = None
            return
        for node in ast.walk(self.tree):
            match node:
                case ast.Call(end_lineno=int(end), end_col_offset=int(end_column)):
                    self.calls[node.lineno, node.col_offset, end, end_column] = node
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                    self.functions[first, node.name] = node
        self.assigned = assignments(self.tree.body)


def parse(source: bytes) -> ast.Module:
    while True:
        try:
            return ast.parse(source)
        except SystemError:
            continue  # the parser of CPython 3.11 counts the depth of all threads together


def assignments(body: list[ast.stmt]) -> dict[str, list[ast.expr]]:
    """What is assigned to each name, in these statements and those inside, but not in functions."""
    found: dict[str, list[ast.expr]] = {}
    todo: list[ast.AST] = list(body)
    while todo:
        node = todo.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                continue
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    if isinstance(target, ast.Name):
                        found.setdefault(target.id, []).append(value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                found.setdefault(name, []).append(value)
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                found.setdefault(name, []).append(value)
        todo.extend(ast.iter_child_nodes(node))
    return found


_modules: dict[str, Module] = {}


def module_of(path: str) -> Module:
    found = _modules.get(path)
    if found is None:
        found = _modules[path] = Module(path)
    return found


def call_of(frame: FrameType) -> ast.Call | None:
    """The call that a frame is in."""
    place = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None), None)
    if place is None or None in place:
        return None
    line, end, column, end_column = place
    return module_of(frame.f_code.co_filename).calls.get((line, column, end, end_column))  # type: ignore[arg-type]


# --- formats --------------------------------------------------------------------------------------------------------


def percent(parts: Parts) -> Parts:
    found: list[str | None] = []
    for part in parts:
        if part is None:
            found.append(None)
            continue
        at = 0
        for match in PERCENT.finditer(part):
            found += [part[at : match.start()], "%" if match[1] else None]
            at = match.end()
        found.append(part[at:])
    return tuple(found)


def braces(parts: Parts) -> Parts:
    found: list[str | None] = []
    for part in parts:
        if part is None:
            found.append(None)
            continue
        try:
            for literal, field, _, _ in string.Formatter().parse(part):
                found.append(literal)
                if field is not None:
                    found.append(None)
        except ValueError:
            found.append(part)
    return tuple(found)


def formats(frame: FrameType, node: ast.expr | None, depth: int = 0) -> list[Parts]:
    """Every literal text that an expression can have."""
    if node is None or depth > MAX_DEPTH:
        return []
    deeper = depth + 1
    match node:
        case ast.Constant(value=str(text)):
            return [(text,)]
        case ast.JoinedStr(values=values):
            choices = [fields(frame, value, deeper) for value in values]
            return [tuple(part for parts in choice for part in parts) for choice in product(*choices)]
        case ast.BinOp(op=ast.Mod(), left=left):
            return [percent(parts) for parts in formats(frame, left, deeper)]
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            before, after = summand(frame, left, deeper), summand(frame, right, deeper)
            if not before and not after:
                return []
            return [(*one, *two) for one, two in product(before or [(None,)], after or [(None,)])]
        case ast.IfExp(body=body, orelse=orelse):
            return formats(frame, body, deeper) + formats(frame, orelse, deeper)
        case ast.BoolOp(values=values):
            return [parts for value in values for parts in formats(frame, value, deeper)]
        case ast.NamedExpr(value=value) | ast.Await(value=value):
            return formats(frame, value, deeper)
        case ast.Call(func=ast.Attribute(attr="format", value=value)):
            return [braces(parts) for parts in formats(frame, value, deeper)]
        case ast.Call(func=ast.Attribute(attr="strip" | "rstrip", value=value)):
            return [(*parts[:-1], (parts[-1] or "").rstrip() or None) for parts in formats(frame, value, deeper)]
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[first, *_]) if name in GETTEXT:
            return formats(frame, first, deeper)
        case ast.Name(id=name):
            return named(frame, name, deeper)
        case ast.Attribute(value=ast.Name(id=owner), attr=attribute):
            return held(frame, owner, attribute)
    return []


def fields(frame: FrameType, node: ast.expr, depth: int) -> list[Parts]:
    """A part of an f-string: a value, unless it is called a message."""
    match node:
        case ast.Constant(value=str(text)):
            return [(text,)]
        case ast.FormattedValue(value=ast.Name(id=name) as value) if name in MESSAGES:
            return formats(frame, value, depth) or [(None,)]
    return [(None,)]


def summand(frame: FrameType, node: ast.expr, depth: int) -> list[Parts]:
    """A part of a sum: a name is a value, unless it is called a message."""
    return formats(frame, node, depth) if not isinstance(node, ast.Name) or node.id in MESSAGES else []


def named(frame: FrameType, name: str, depth: int) -> list[Parts]:
    """The texts that a name can have in the function that a frame runs."""
    code = frame.f_code
    module = module_of(code.co_filename)
    function = module.functions.get((code.co_firstlineno, code.co_name))
    found: list[Parts] = []
    if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
        for value in assignments(function.body).get(name, ()):
            if not any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(value)):
                found += formats(frame, value, depth)
    if name in parameters(code):
        caller, argument = passed(frame, name)
        if caller is not None:
            found += formats(caller, argument, depth)
    elif not found and name not in code.co_varnames:
        for value in module.assigned.get(name, ()):
            found += formats(frame, value, depth)
        text = frame.f_globals.get(name)
        if not found and isinstance(text, str):
            found.append((text,))
    return found


def held(frame: FrameType, owner: str, attribute: str) -> list[Parts]:
    """The text of a constant in a class or a module."""
    value = frame.f_locals.get(owner, frame.f_globals.get(owner))
    kinds = value.__mro__ if isinstance(value, type) else type(value).__mro__
    texts = [vars(kind).get(attribute) for kind in kinds]
    if isinstance(value, type(sys)):
        texts.append(vars(value).get(attribute))
    return next(([(text,)] for text in texts if isinstance(text, str)), [])


def parameters(code: CodeType) -> tuple[str, ...]:
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def passed(frame: FrameType, name: str) -> tuple[FrameType | None, ast.expr | None]:
    """The caller's frame, and the expression that it passed for a parameter."""
    caller = frame.f_back
    call = call_of(caller) if caller is not None else None
    if caller is None or call is None:
        return None, None
    for keyword in call.keywords:
        if keyword.arg == name:
            return caller, keyword.value
    names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
    if name not in names:
        return None, None
    place = names.index(name)
    if names[0] in ("self", "cls"):
        place -= 1
    return positional(caller, call, place)


def positional(frame: FrameType, call: ast.Call, place: int) -> tuple[FrameType | None, ast.expr | None]:
    """The expression at a place among a call's arguments, through `*args` of the function that makes it."""
    for at, argument in enumerate(call.args[: place + 1]):
        if isinstance(argument, ast.Starred):
            code = frame.f_code
            caller = frame.f_back
            further = call_of(caller) if caller is not None else None
            count = code.co_argcount + code.co_kwonlyargcount
            if (
                caller is None
                or further is None
                or not code.co_flags & 0x04
                or not isinstance(argument.value, ast.Name)
                or argument.value.id != code.co_varnames[count]
            ):
                return None, None
            taken = code.co_argcount - (1 if code.co_varnames[0] in ("self", "cls") else 0)
            return positional(caller, further, taken + place - at)
    return (frame, call.args[place]) if 0 <= place < len(call.args) else (None, None)


def fitting(candidates: list[Parts], message: str, *, is_name: bool) -> tuple[Parts, bool] | None:
    """The text that fits a message best, and whether it is the whole of it."""
    found = []
    for parts in candidates:
        letters = sum(len(part.strip()) for part in parts if part is not None)
        if not letters or (is_name and None in parts and not any(map(str.isalpha, "".join(filter(None, parts))))):
            continue
        expression = re.compile("".join(".*?" if part is None else re.escape(part) for part in parts), re.DOTALL)
        if expression.fullmatch(message):
            found.append((True, letters, parts))
        elif (letters > 3 and expression.search(message)) or (len(parts) == 1 and message.endswith(parts[0] or " ")):
            found.append((False, letters, parts))
    if not found:
        return None
    whole, _, parts = max(found, key=lambda one: one[:2])
    return parts, whole


def truth(frame: FrameType | None, msg: object, args: object) -> tuple[str, str]:
    """The true format, and how it was found."""
    if not isinstance(msg, (str, dict, list, tuple)):
        msg = str(msg)  # such as a translation that waits
    if frame is not None and isinstance(msg, str) and (call := call_of(frame)) is not None:
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        owner, node = positional(frame, call, 1 if name in LEVEL_FIRST else 0)
        if node is None:
            owner = frame
            node = next((word.value for word in call.keywords if word.arg in ("msg", "message")), None)
        is_name = not isinstance(node, (ast.Constant, ast.JoinedStr, ast.BinOp, ast.Call))
        found = fitting(formats(owner or frame, node), msg, is_name=is_name)
        if found is not None:
            parts, whole = found
            text = re.sub(r"(?:<\*>){2,}", WILDCARD, "".join(WILDCARD if part is None else part for part in parts))
            how = "constant" if None not in parts else "literal"
            if is_name:
                how = "name"
            return text, how if whole else "prefixed"
    if args and isinstance(msg, str):
        return msg, "format"
    return VARIABLE, "variable"


# --- notes ----------------------------------------------------------------------------------------------------------


class Graded(LogSampler):
    """A sampler that says which grade of identity the last record had."""

    by_text = False

    def _text_stream(self, message: str, band: Severity, severity: int, logger: str) -> Stream:
        self.by_text = True
        return super()._text_stream(message, band, severity, logger)

    def grade(self, args: object) -> int:
        by_text, self.by_text = self.by_text, False
        return 3 if by_text else 1 if args else 2


class Probe:
    """Decides on each record in both ways, early and by its site, and notes what was found."""

    def __init__(self, notes: str) -> None:
        rules = Rules(mode="dry-run", rates={}, first=10, window_s=60.0)
        self._early, self._late = Graded(rules), Graded(rules)
        self._sites: set[tuple[CodeType, int]] = set()
        self._files: set[str] = set()
        self._file = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def call(self, logger: str, levelno: int, msg: object, args: Any, code: CodeType, instruction: int) -> Verdict:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and not (frame.f_code is code and frame.f_lasti == instruction):
            frame = frame.f_back
        assert frame is not None
        return self._both(frame, frame, logger, levelno, msg, args, code.co_filename, frame.f_lineno, code.co_name)

    def site(
        self, logger: str, levelno: int, msg: object, args: Any, pathname: str | None, lineno: int, function: str | None
    ) -> Verdict:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename != LOGGING:
            frame = frame.f_back
        while frame is not None and frame.f_code.co_filename == LOGGING:
            frame = frame.f_back
        direct = frame
        while frame is not None and (frame.f_code.co_filename, frame.f_lineno) != (pathname, lineno):
            frame = frame.f_back  # `stacklevel`
        return self._both(
            frame if frame is direct else None, frame, logger, levelno, msg, args, pathname or "", lineno, function
        )

    def text(self, logger: str, severity: int, message: str, event_name: str | None = None) -> Verdict:
        return self._late.text(logger, severity, message, event_name)

    def _both(
        self,
        frame: FrameType | None,
        site: FrameType | None,
        logger: str,
        levelno: int,
        msg: object,
        args: Any,
        path: str,
        line: int,
        function: str | None,
    ) -> Verdict:
        note: dict[str, object] = {"path": path, "line": line, "function": function, "logger": logger}
        note["format"], note["how"] = truth(site, msg, args)
        note["message"] = str(msg)[:160]
        verdict = self._late.site(logger, levelno, msg, args, path, line, function)
        note["late_grade"] = self._late.grade(args)
        assert verdict is not None
        note["late"] = verdict[PATTERN_ID]
        if frame is not None:
            key = (frame.f_code, frame.f_lasti)
            first = None if key in self._sites else "site" if path in self._files else "file"
            self._sites.add(key)
            self._files.add(path)
            if first == "file":
                source._files.clear()
            began = time.thread_time()
            verdict = self._early.call(logger, levelno, msg, args, *key)
            if first is not None:
                note[f"first_of_{first}_us"] = (time.thread_time() - began) * 1e6
            note["early_grade"] = self._early.grade(args)
            assert verdict is not None
            note["early"] = verdict[PATTERN_ID]
        os.write(self._file, json.dumps(note).encode() + b"\n")
        return verdict


class Exported(LogRecordProcessor):
    """Stands for the exporter: a record that arrives carries its pattern."""

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        assert PATTERN_ID in (log_record.log_record.attributes or {})

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


def main() -> None:
    notes, program = sys.argv[1:3]
    sys.argv = [program]
    provider = LoggerProvider()
    provider.add_log_record_processor(Exported())
    logging_bridge.install(LogCapture(provider, Probe(notes)))
    logging.getLogger().setLevel(logging.DEBUG)
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
