"""A logging call carries its template in the source."""

from __future__ import annotations

import ast
import linecache
import sys
import warnings
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.sample.logs import source
from otelweir.pipeline.sample.logs.source import SourceTemplate

TEMPLATES: dict[str, list[SourceTemplate]] = {
    'log.info("started")': [SourceTemplate("started", True)],
    'log.info("a" "b")': [SourceTemplate("ab", True)],
    'log.info(f"user {x} in {y!r:>10}")': [SourceTemplate("user <*> in <*>", False)],
    'log.info(f"{x}{y} done")': [SourceTemplate("<*> done", False)],
    'log.info(f"{{literal}} {x}")': [SourceTemplate("{literal} <*>", False)],
    'log.info("user %s of %d (100%%)" % (x, y))': [SourceTemplate("user <*> of <*> (100%)", False)],
    'log.info("user {} of {name:.2f}".format(x, name=y))': [SourceTemplate("user <*> of <*>", False)],
    'log.info("user " + x + " left")': [SourceTemplate("user <*> left", False)],
    'log.info(f"{x} " "and %s" % y)': [SourceTemplate("<*> and <*>", False)],
    'log.info("done\\n".rstrip())': [SourceTemplate("done", True)],
    'log.log(10, f"level {x}")': [SourceTemplate("level <*>", False)],
    'log.info(msg=f"named {x}")': [SourceTemplate("named <*>", False)],
    'log.info("%d items", x)': [SourceTemplate("%d items", True)],
    'log.info("a" if x else "b")': [SourceTemplate("a", True), SourceTemplate("b", True)],
    'log.info(x or f"no {y}")': [SourceTemplate("no <*>", False)],
    'log.info(_("translated"))': [SourceTemplate("translated", True)],
    'log.info(ngettext("%d item", "%d items", x) % x)': [
        SourceTemplate("<*> item", False),
        SourceTemplate("<*> items", False),
    ],
    "log.info(x)": [],
    "log.info(*x)": [],
    "log.info()": [],
    'log.info(f"{x}")': [],
    'log.info(f"{x} {y}")': [],
    'log.info(x.format("b"))': [],
    'log.info("%s" % x)': [],
    'log.info(", ".join(x))': [],
}


def templates(call: ast.Call, scope: source.Scope | None = None) -> list[SourceTemplate]:
    messages = source.messages_of_call(call, scope)
    return [found for message in messages if (found := source.template_of(message)) is not None]


@pytest.mark.parametrize("call", TEMPLATES)
def test_the_templates_of_a_call_are_the_literal_parts_of_its_messages(call: str) -> None:
    node = ast.parse(call, mode="eval").body
    assert isinstance(node, ast.Call)
    assert templates(node) == TEMPLATES[call]


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
            read = templates(template) if template is not None else []
            notes.append(read[0].template if read else None)

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
    scope = source.Scope(source.lines_of("<generated>"), line)
    for name in (*scope.names, *scope.parameters, "x"):
        list(scope.assigned(name))


@pytest.mark.parametrize("text", [r'log.info("\d")', r'log.info("\\\d")', r'log.info("\777")', r'log.info("\%s")'])
def test_reading_source_prints_no_warning(text: str) -> None:
    """The parser warns of escapes that are none, once more than the application would see without us."""
    linecache.cache["<generated>"] = (len(text), None, [text + "\n"], "<generated>")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert source.call_at("<generated>", 1) is None


@pytest.mark.parametrize("text", [r"\n", r"\\d", r"\x41", r"\u00e9", r"\0", r"\'"])
def test_escapes_are_read(text: str) -> None:
    text = f'log.info("{text}")'
    linecache.cache["<generated>"] = (len(text), None, [text + "\n"], "<generated>")
    assert source.call_at("<generated>", 1) is not None


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


NAMES = """
GREETING = "hello %s, welcome"
TYPED: Final = f"typed {1}"

def assigned(log, x):
    message = f"plain {x}"
    if x:
        message = (
            "over "
            "lines %s" % x
        )
    text = '''
looks like the end of the function
'''
    return log.info(message)

class Service:
    def chained(self, log):
        local = GREETING % self
        def inner():
            pass
        log.info(local)
        log.info(TYPED)
        log.info(unknown)

    def own_value(self, log, message):
        message = f"[{self}] " + message
        message = message % self
        log.info(message)

async def signature(
    log, *args: object, prefix: str = ":",  # a colon
    message="x",
) -> None:
    log.info("[1] " + message)
    log.info(*args)
    log.info(f"{prefix} {message}")
"""


class TestNames:
    """A name is what was assigned to it, and a parameter is what the caller passes."""

    LINES = NAMES.splitlines(keepends=True)

    def found(self, text: str) -> tuple[tuple[str, ...], list[source.Parts]]:
        line = next(number for number, one in enumerate(self.LINES, 1) if text in one)
        call = ast.parse(self.LINES[line - 1].strip().removeprefix("return "), mode="eval").body
        assert isinstance(call, ast.Call)
        scope = source.Scope(self.LINES, line)
        messages = source.messages_of_call(call, scope)
        known = [message for message in messages if source._UNKNOWN not in message]
        return scope.names, known

    def test_a_local_name_is_any_of_its_values(self) -> None:
        names, messages = self.found("return log.info(message)")
        assert names == ("assigned",)
        assert messages == [("plain ", None), ("over lines ", None, "")]

    def test_a_constant_of_the_module_is_found(self) -> None:
        names, messages = self.found("log.info(local)")
        assert names == ("Service", "chained")
        assert messages == [("hello ", None, ", welcome")]
        assert self.found("log.info(TYPED)")[1] == [("typed ", None)]
        assert self.found("log.info(unknown)")[1] == []

    def test_a_name_that_is_made_of_itself_ends(self) -> None:
        """Else looking for it would not."""
        message = source.Passed("message")
        assert (message,) in self.found("        log.info(message)")[1]

    def test_a_parameter_is_left_to_the_caller(self) -> None:
        message = source.Passed("message")
        assert self.found('log.info("[1] " + message)')[1] == [("[1] ", message)]
        assert self.found("log.info(*args)")[1] == [(source.Passed("args", 0),)]
        assert self.found("{prefix} {message}")[1] == [(None, " ", message)]


class TestAnAdaptersPrefix:
    @pytest.mark.parametrize(
        ("template", "message", "within"),
        [
            (SourceTemplate("job started", True), "[conn 4] job started", True),
            (SourceTemplate("%s: %s", True), "[conn 4] %s: %s", True),
            (SourceTemplate("user <*> left", False), "[conn 4] user ann left", True),
            (SourceTemplate("user <*> left", False), "[conn 4] user ann stays", False),
            (SourceTemplate("<*>.started", False), "connect.started host=1", False),
            (SourceTemplate("a", True), "a cat", False),
        ],
    )
    def test_a_message_is_recognized_behind_it(self, template: SourceTemplate, message: str, within: bool) -> None:
        assert template.within(message) is within


def test_a_message_matches_to_its_end() -> None:
    """A template that fits the beginning of another message would hide that message's pattern."""
    template = SourceTemplate("user <*> left", False)
    assert template.matches("user ann left") and not template.matches("user ann left a note")
    assert not SourceTemplate("ab<*>bc", False).matches("abc")


def test_files_do_not_stay_in_memory(tmp_path: Path) -> None:
    """`linecache` would keep the source of every file that logs."""
    for number in range(50):
        path = tmp_path / f"module_{number}.py"
        path.write_text('log.info("x")\n')
        assert source.call_at(str(path), 1) is not None
        assert str(path) not in linecache.cache
    assert len(source._files) <= 8


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    """Reading it would take the application's time."""
    path = tmp_path / "generated.py"
    path.write_text('log.info("x")\n' + "#" * 3 * 2**20)
    assert source.call_at(str(path), 1) is None


def test_what_a_notebook_holds_is_found() -> None:
    linecache.cache["<cell>"] = (5, None, ['log.info(f"cell {x}")\n'], "<cell>")
    call = source.call_at("<cell>", 1)
    assert call is not None and templates(call) == [SourceTemplate("cell <*>", False)]


def test_an_origin_says_neither_folder_nor_line() -> None:
    """An id must not change with the install path, or with an edit above the line."""
    assert tuple(source.origin_of("/opt/app/shop/cart.py", "add")) == ("cart", "add")
    assert tuple(source.origin_of("C:\\\\app\\\\cart.py", "add")) == ("cart", "add")
    assert tuple(source.origin_of("<stdin>", None)) == ("<stdin>", "")
    assert tuple(source.origin_of("<ipython-input-3-5a3e>", "<module>")) == ("<ipython-input>", "")
    assert tuple(source.origin_of("/tmp/ipykernel_77/4711.py", "f.<locals>.<lambda>")) == ("", "f")


def test_an_origin_names_the_package(tmp_path: Path) -> None:
    """Files named alike are many: views.py, utils.py, __init__.py."""
    package = tmp_path / "shop" / "cart"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    assert source.origin_of(str(package / "views.py"), "View.get") == ("shop.cart.views", "View.get")
