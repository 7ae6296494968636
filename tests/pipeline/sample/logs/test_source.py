"""A logging call carries its template in the source."""

from __future__ import annotations

import ast
import linecache
import sys
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.sample.logs import source
from otelweir.pipeline.sample.logs.source import SourceTemplate

TEMPLATES: dict[str, SourceTemplate | None] = {
    'log.info("started")': SourceTemplate("started", True),
    'log.info("a" "b")': SourceTemplate("ab", True),
    'log.info(f"user {x} in {y!r:>10}")': SourceTemplate("user <*> in <*>", False),
    'log.info(f"{x}{y} done")': SourceTemplate("<*> done", False),
    'log.info(f"{{literal}} {x}")': SourceTemplate("{literal} <*>", False),
    'log.info("user %s of %d (100%%)" % (x, y))': SourceTemplate("user <*> of <*> (100%)", False),
    'log.info("user {} of {name:.2f}".format(x, name=y))': SourceTemplate("user <*> of <*>", False),
    'log.info("user " + x + " left")': SourceTemplate("user <*> left", False),
    'log.info(f"{x} " "and %s" % y)': SourceTemplate("<*> and <*>", False),
    'log.log(10, f"level {x}")': SourceTemplate("level <*>", False),
    'log.info(msg=f"named {x}")': SourceTemplate("named <*>", False),
    'log.info("%d items", x)': SourceTemplate("%d items", True),
    "log.info(x)": None,
    "log.info(*x)": None,
    "log.info()": None,
    'log.info(f"{x}")': None,
    'log.info(f"{x} {y}")': None,
    'log.info("a" if x else "b")': None,
    'log.info(x.format("b"))': None,
    'log.info("%s" % x)': None,
    'log.info(_("translated"))': None,
}


@pytest.mark.parametrize("call", TEMPLATES)
def test_the_template_of_a_call_is_its_literal_parts(call: str) -> None:
    node = ast.parse(call, mode="eval").body
    assert isinstance(node, ast.Call)
    assert source.template_of_call(node) == TEMPLATES[call]


PROGRAM = """
x, y = "v", 2
def run(log):
    log.info("plain")
    log.info(f"one {x}"); log.info(f"two {x}")
    log.info(
        "several "
        "lines %s",
        x,
    )
    (log
        .info(f"chained {x}"))
    if x: log.info("behind a colon")
    for _ in range(1): log.info(f"in a loop {y}")
    é = log.info(f"ünïcode {x}"); log.debug("after it")
    return [log.info(f"nested {log.info('inner')}")]
"""


class Recorder:
    """Notes for each call what its place in the code says, and what its line says."""

    def __init__(self) -> None:
        self.by_instruction: list[str | None] = []
        self.by_line: list[str | None] = []

    def info(self, *_: object) -> None:
        frame = sys._getframe(1)
        exact = source.call_of(frame.f_code, frame.f_lasti)
        path, line = frame.f_code.co_filename, frame.f_lineno
        found = None if source.ambiguous(path, line) else source.call_at(path, line)
        for template, notes in ((exact, self.by_instruction), (found, self.by_line)):
            read = source.template_of_call(template) if template is not None else None
            notes.append(read.template if read is not None else None)

    debug = info


def run_program(path: Path) -> Recorder:
    path.write_text(PROGRAM, encoding="utf-8")
    linecache.checkcache(str(path))
    scope: dict[str, Any] = {}
    exec(compile(PROGRAM, str(path), "exec"), scope)
    recorder = Recorder()
    scope["run"](recorder)
    return recorder


def test_a_call_is_found_by_the_instruction_that_makes_it(tmp_path: Path) -> None:
    """Several calls on one line, calls over several lines, and calls within calls are told apart."""
    assert run_program(tmp_path / "program.py").by_instruction == [
        "plain", "one <*>", "two <*>", "several lines %s", "chained <*>", "behind a colon", "in a loop <*>",
        "ünïcode <*>", "after it", "inner", "nested <*>",
    ]  # fmt: skip


def test_a_call_is_found_by_its_line_unless_another_shares_it(tmp_path: Path) -> None:
    """A record tells its line and no more; a wrong template would put two patterns into one."""
    found = run_program(tmp_path / "program.py").by_line
    assert found[:6] == ["plain", None, None, "several lines %s", None, "behind a colon"]
    assert found[7:] == [None, None, None, None]


def test_a_file_that_is_gone_has_no_templates() -> None:
    assert source.call_at("/no/such/file.py", 1) is None
    code: CodeType = compile("f()", "/no/such/file.py", "exec")
    assert all(source.call_of(code, at) is None for at in range(0, len(code.co_code), 2))


@given(st.text(), st.integers(0, 200))
def test_whatever_a_file_holds_nothing_is_raised(text: str, line: int) -> None:
    linecache.cache["<generated>"] = (len(text), None, text.splitlines(keepends=True), "<generated>")
    source.call_at("<generated>", line)
    source.ambiguous("<generated>", line)


@given(st.text(alphabet="%(){}sd.*0123 ax", max_size=40))
def test_templates_of_format_strings_never_raise(text: str) -> None:
    source.percent_template(text)
    source.brace_template(text)


@given(st.lists(st.one_of(st.just("%s"), st.text(alphabet="abc <>*", max_size=5)), max_size=8), st.integers())
def test_a_rendered_message_matches_its_own_template(parts: list[str], value: int) -> None:
    text = "".join(parts)
    message = text % ((value,) * text.count("%s"))
    template = source.percent_template(text)
    assert SourceTemplate(template, "%s" not in text and template == message).matches(message)


class BraceMessage:
    """The message object of the logging cookbook."""

    def __init__(self, fmt: str, *args: object) -> None:
        self.fmt, self.args = fmt, args

    def __str__(self) -> str:
        return self.fmt.format(*self.args)


def test_a_message_object_may_carry_its_format_string() -> None:
    assert source.literal_message(BraceMessage("user {} left", "ann")) == "user <*> left"
    assert source.literal_message(object()) is None
    assert source.literal_message(ValueError("x")) is None


def test_an_origin_says_neither_folder_nor_line() -> None:
    """An id must not change with the install path, or with an edit above the line."""
    assert tuple(source.origin_of("/opt/app/shop/cart.py", "add")) == ("cart", "add")
    assert tuple(source.origin_of("C:\\\\app\\\\cart.py", "add")) == ("cart", "add")
    assert tuple(source.origin_of("<stdin>", None)) == ("<stdin>", "")
