"""A call put in front of a function's own code, without another frame.

A wrapper shows: in the traceback of every exception that passes through it, in the depth of the stack, in what looks
for its caller by counting frames. So the function is compiled anew from its own source, with one statement added on
the line of its `def`; file name, line numbers and columns stay what they were.
"""

from __future__ import annotations
import __future__

import ast
import linecache
from collections.abc import Callable, Sequence
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

_HOOK: Final = "_otelweir_hook"
_MAKE: Final = "_otelweir_make"


def spliced(function: Callable[..., Any], hook: Callable[..., Any]) -> FunctionType | None:
    """A copy of a function that calls `hook` first, with its own arguments, and is over when that gives something true.

    Args:
        function: A plain function or method, without decorators and closures.
        hook: What to call. It must not raise.

    Returns:
        The copy; None where the function's source cannot be had, or is not what the function was made of.
    """
    if type(function) is not FunctionType or function.__closure__ or function.__code__.co_freevars:
        return None
    code = function.__code__
    try:
        node = _definition(code)
        # The compiler treats calls on imported modules its own way, so it has to see the imports.
        modules = [name for name in code.co_names if isinstance(function.__globals__.get(name), ModuleType)]
        imports = ast.parse(f"if 0: import {', '.join(modules)}").body if modules else []
        if node is None or not _same(code, _compiled([*imports, node], code)):
            return None
        names = ", ".join(argument.arg for argument in node.args.args)
        statement = f"if {_HOOK}({names}): return"
        node.body.insert(
            1 if ast.get_docstring(node, clean=False) is not None else 0, _at(statement, code.co_firstlineno)
        )
        factory = ast.parse(f"def {_MAKE}({_HOOK}):\n return {node.name}").body[0]
        assert isinstance(factory, ast.FunctionDef)
        factory.body.insert(0, node)
        found: dict[str, Any] = {}
        # The globals are the function's own, so that it sees what is assigned there later; nothing is added to them.
        exec(_compiled([*imports, factory], code), function.__globals__, found)  # noqa: S102 - the text is the function's own
    except (SyntaxError, ValueError, RecursionError, OSError):
        return None
    copy: FunctionType = found[_MAKE](hook)
    copy.__code__ = copy.__code__.replace(co_qualname=code.co_qualname)
    copy.__qualname__ = function.__qualname__
    copy.__module__ = function.__module__
    copy.__defaults__ = function.__defaults__
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__dict__.update(function.__dict__)
    return copy


def _definition(code: CodeType) -> ast.FunctionDef | None:
    """The definition that a function's code was compiled from."""
    last = max((end for _, end, _, _ in code.co_positions() if end is not None), default=0)
    lines = linecache.getlines(code.co_filename)[code.co_firstlineno - 1 : last]
    if not lines:
        return None
    # A method is indented; a block around it leaves the columns as they are.
    indented = lines[0][:1].isspace()
    tree = ast.parse("".join(["if True:\n", *lines] if indented else lines))
    ast.increment_lineno(tree, code.co_firstlineno - (2 if indented else 1))
    node = tree.body[0]
    if isinstance(node, ast.If):
        node = node.body[0]
    plain = isinstance(node, ast.FunctionDef) and not node.decorator_list and node.name == code.co_name
    return node if plain else None  # type: ignore[return-value]


def _compiled(body: Sequence[ast.stmt], like: CodeType) -> CodeType:
    module = ast.fix_missing_locations(ast.Module(list(body), []))
    flags = like.co_flags & __future__.annotations.compiler_flag
    code: CodeType = compile(module, like.co_filename, "exec", flags, dont_inherit=True)
    return code


def _same(code: CodeType, module: CodeType) -> bool:
    """Whether the source, compiled, gives the function: the file may be newer than what is running."""
    compiled = next((const for const in module.co_consts if isinstance(const, CodeType)), None)
    return compiled is not None and all(
        getattr(code, name) == getattr(compiled, name)
        for name in ("co_code", "co_consts", "co_names", "co_varnames", "co_argcount", "co_flags")
    )


def _at(statement: str, line: int) -> ast.stmt:
    """A statement all of which stands at the beginning of a line."""
    node = ast.parse(statement).body[0]
    for part in ast.walk(node):
        if hasattr(part, "lineno"):
            part.lineno = part.end_lineno = line  # type: ignore[attr-defined]
            part.col_offset = part.end_col_offset = 0  # type: ignore[attr-defined]
    return node
