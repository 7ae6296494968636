"""`weir redact check`: what would be hidden in a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from otelweir.cli.redact import command

LINES = "all is well\nuser bob@example.org logged in\nlogin password=hunter2 of bob@example.org from 10.1.2.3\n"


def run(*arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(command, ["check", *arguments], input=given)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "service.log"
    path.write_text(LINES, encoding="utf-8")
    return str(path)


def test_it_shows_lines_as_they_would_leave_and_counts_by_rule(file: str) -> None:
    found = run(file)
    assert found.exit_code == 0
    assert "2: user [redacted:email] logged in\n" in found.output
    assert "3 would be hidden, in 2 of 3 lines" in found.output
    assert "hunter2" not in found.output and "bob@" not in found.output


def test_as_json(file: str) -> None:
    found = json.loads(run(file, "--json").output)
    assert found["rules"] == {"email": 2, "name": 1}
    assert found["lines"] == 3
    assert found["findings"][0] == {"line": 2, "column": 6, "length": 15, "rule": "email"}


def test_the_variables_and_a_policy_decide(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIR_REDACT_RULES", "default,ipv4")
    policy = tmp_path / "policy.yaml"
    policy.write_text("redact:\n  signals: {logs: {rules: -email, allow: hunter2}}\n", encoding="utf-8")
    assert json.loads(run(file, "--json").output)["rules"] == {"email": 2, "name": 1, "ipv4": 1}
    assert "Nothing would be hidden in 3 lines." in run(file, "--policy", str(policy)).output


def test_standard_input(file: str) -> None:
    assert "1 of 1 lines" in run("-", given="token=abc123\n").output


def test_nothing_to_hide_as_json(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("all is well\n")
    found = json.loads(run(str(tmp_path / "x.log"), "--json").output)
    assert (found["findings"], found["lines"], found["rules"]) == ([], 1, {})


def test_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(bytes(range(256)) * 100 + b"\n\xff\xfe token=abc123 \0\x1b[31m\n")
    found = run(str(tmp_path / "x.bin"), "--all")
    assert found.exit_code == 0
    assert "token=[redacted:name]" in found.output and "\x1b" not in found.output


def test_nothing_to_hide(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("all is well\n")
    assert run(str(tmp_path / "x.log")).output == "Nothing would be hidden in 1 lines.\n"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    found = run(str(tmp_path / "no.log"))
    assert found.exit_code == 1
    assert "cannot be read: No such file or directory" in found.output


def test_a_long_output_is_cut_unless_asked_for(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("token=abc123\n" * 70)
    assert "… and 20 more lines" in run(str(tmp_path / "x.log")).output
    assert run(str(tmp_path / "x.log"), "--all").output.count("[redacted:name]") == 70


def test_help_has_examples() -> None:
    assert "weir redact check service.log" in run("--help").output
