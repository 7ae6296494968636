from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otelweir.pipeline.capture.splice import spliced

METHODS: list[Any] = [
    logging.Logger._log,
    logging.Logger.callHandlers,
    logging.Logger.makeRecord,
    logging.Logger.addHandler,
    traceback.print_exc,
]


def a_function(a: int, b: int = 2) -> str:
    """Documented."""
    if a == 0:
        raise ValueError("zero")
    return f"{a} {b}"


@pytest.mark.parametrize("function", METHODS, ids=lambda function: function.__qualname__)
def test_a_function_of_the_standard_library_can_be_spliced(function: Callable[..., Any]) -> None:
    """If this fails with a new Python, the bridge falls back to wrappers, which tracebacks show."""
    copy = spliced(function, lambda *_: None)
    assert copy is not None
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__defaults__", "__kwdefaults__"):
        assert getattr(copy, name) == getattr(function, name)
    assert copy.__globals__ is function.__globals__
    for name in ("co_filename", "co_firstlineno", "co_name", "co_qualname", "co_varnames", "co_names"):
        assert getattr(copy.__code__, name) == getattr(function.__code__, name)


def test_a_function_that_has_run_often_can_be_spliced() -> None:
    """The interpreter has rewritten its code by then."""
    log = logging.Logger("spliced", 1)
    log.addHandler(logging.NullHandler())
    for n in range(3000):
        log.info("%d", n)
    assert spliced(logging.Logger._log, lambda *_: None) is not None
    assert spliced(logging.Logger.callHandlers, lambda *_: None) is not None


class TestTheHook:
    def test_gets_the_arguments_first_and_may_end_the_call(self) -> None:
        calls: list[tuple[object, ...]] = []

        def hook(*args: object) -> bool:
            calls.append(args)
            return args[0] == 9

        copy = spliced(a_function, hook)
        assert copy is not None
        assert (copy(1), copy(1, b=3), copy(9)) == ("1 2", "1 3", None)
        assert calls == [(1, 2), (1, 3), (9, 2)]

    def test_is_in_no_traceback(self) -> None:
        copy = spliced(a_function, lambda *_: None)
        assert copy is not None
        shown = []
        for function in (a_function, copy):
            try:
                function(0)
            except ValueError as error:
                shown.append(traceback.format_tb(error.__traceback__)[1:])
        assert shown[0] == shown[1] != []


class TestWhatCannotBeSpliced:
    def test_is_a_function_whose_source_is_missing(self) -> None:
        found: dict[str, Any] = {}
        exec("def nowhere(): return 1", found)
        assert spliced(found["nowhere"], print) is None

    def test_is_a_function_whose_source_has_changed(self, tmp_path: Path) -> None:
        file = tmp_path / "changed.py"
        file.write_text("def f():\n    return 1\n")
        found: dict[str, Any] = {}
        exec(compile(file.read_text(), str(file), "exec"), found)
        file.write_text("def f():\n    return 2\n")
        assert spliced(found["f"], print) is None

    def test_is_a_closure_a_decorated_function_and_a_builtin(self) -> None:
        value = 1

        def closure() -> int:
            return value

        @functools.wraps(closure)
        def decorated() -> None: ...

        for function in (closure, len, lambda: 1, decorated, logging.Logger):
            assert spliced(function, print) is None
