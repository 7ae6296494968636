"""The frame of the `weir` command: how it ends when it cannot write, is interrupted, or something is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MAIN = "from otelweir.cli import main; main()"


def run(*arguments: object, code: str = MAIN, shell: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with what a shell adds to it."""
    python = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        ["sh", "-c", f'"$@" {shell}', "sh", *python] if shell else python,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environ},
    )


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.json"
    path.write_text("{}")
    return path


needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


class TestOutput:
    @needs_full
    @pytest.mark.parametrize(
        "arguments", ["--help", "policy explain FILE x", "policy check FILE", "doctor --no-network"]
    )
    def test_a_full_disk_is_told_in_a_line(self, policy: Path, arguments: str) -> None:
        done = run(*arguments.replace("FILE", str(policy)).split(), shell=">/dev/full")
        assert done.stderr == "Error: the output cannot be written: No space left on device\n"
        assert done.returncode == 1

    @pytest.mark.parametrize("arguments", ["--help", "policy explain FILE x", "doctor --no-network"])
    def test_a_closed_output_is_told_in_a_line(self, policy: Path, arguments: str) -> None:
        done = run(*arguments.replace("FILE", str(policy)).split(), shell=">&-")
        assert done.stderr == "Error: the standard output is closed; to discard it, write >/dev/null\n"
        assert done.returncode == 1

    def test_a_reader_that_has_seen_enough_is_no_error(self) -> None:
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            [sys.executable, "-c", MAIN, "--help"], stdout=write, stderr=subprocess.PIPE, check=False, timeout=60
        )
        os.close(write)
        assert (done.returncode, done.stderr) == (1, b"")

    @needs_full
    @pytest.mark.parametrize("shell", ["2>/dev/full", "2>&-"])
    def test_the_exit_code_stands_where_the_error_cannot_be_told(self, tmp_path: Path, shell: str) -> None:
        (tmp_path / "bad.json").write_text("[]")
        assert run("policy", "check", tmp_path / "bad.json", shell=shell).returncode == 1
        assert run("policy", "check", "missing.json", shell=shell).returncode == 2

    def test_a_closed_input_is_told_in_a_line(self, policy: Path) -> None:
        done = run("policy", "replay", policy, "-", shell="<&-")
        assert (done.returncode, done.stderr) == (1, "Error: the standard input is closed\n")

    def test_signs_that_the_output_does_not_know_are_replaced(self, policy: Path) -> None:
        done = run("policy", "explain", policy, "h\u00e9llo", PYTHONIOENCODING="ascii", PYTHONUTF8="1")
        assert (done.returncode, done.stderr) == (0, "")
        assert "h?llo" in done.stdout


class TestErrors:
    def test_have_one_form(self) -> None:
        code = f"""
import otelweir.cli as cli
from otelweir.errors import PORT_IN_USE, ServerError
def fail(**_): raise ServerError(PORT_IN_USE, "a port")
cli.cli = fail
{MAIN}"""
        done = run(code=code)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: WEIR-SERVER-001: a port. Stop what listens there")

    @pytest.mark.parametrize("raised", ["OSError(2, 'missing', 'a-file')", "ValueError('x')"])
    def test_a_mistake_of_ours_keeps_its_traceback(self, raised: str) -> None:
        done = run(code=f"import otelweir.cli as cli\ndef fail(**_): raise {raised}\ncli.cli = fail\n{MAIN}")
        assert "Traceback" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
class TestInterrupted:
    SELF = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"

    def test_anywhere_gives_130(self) -> None:
        done = run(code=f"import otelweir.cli as cli\ndef fail(**_): {self.SELF}\ncli.cli = fail\n{MAIN}")
        assert (done.returncode, done.stderr) == (130, "Interrupted.\n")

    def test_while_an_error_is_told_gives_130(self) -> None:
        code = f"""
import otelweir.cli as cli
from otelweir.errors import PORT_IN_USE, ServerError
def fail(**_): raise ServerError(PORT_IN_USE, "a port")
cli.cli = fail
def interrupted(_): raise KeyboardInterrupt
cli._failed = interrupted
{MAIN}"""
        done = run(code=code)
        assert (done.returncode, done.stderr) == (130, "Interrupted.\n")

    def test_when_all_is_done_the_exit_code_stands(self, policy: Path, tmp_path: Path) -> None:
        """In the interpreter's last moments, where nothing of ours could catch it."""
        last = f"import atexit\n@atexit.register\ndef last():\n    {self.SELF}\n{MAIN}"
        (tmp_path / "bad.json").write_text("[]")
        done = run("policy", "check", policy, code=last)
        assert (done.returncode, done.stderr) == (0, "")
        assert run("policy", "check", tmp_path / "bad.json", code=last).returncode == 1
