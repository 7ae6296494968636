"""Problems and exceptions: codes that stay, messages that say what to do, warnings that are given once."""

from __future__ import annotations

import logging
import os
import re
import threading

import pytest

from otelweir import errors
from otelweir.errors import ConfigError, MissingExtra, PolicyError, ServerError, WeirError


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "otelweir"]


class TestProblems:
    def test_have_a_code_of_their_own(self) -> None:
        assert all(re.fullmatch(r"WEIR-[A-Z]+-\d{3}", code) for code in errors.PROBLEMS)
        assert [problem.code for problem in errors.PROBLEMS.values()] == list(errors.PROBLEMS)
        named = {value.code for value in vars(errors).values() if isinstance(value, errors.Problem)}
        assert named == set(errors.PROBLEMS)

    @pytest.mark.parametrize("code", errors.PROBLEMS)
    def test_say_what_is_wrong_and_what_to_do(self, code: str) -> None:
        problem = errors.PROBLEMS[code]
        assert problem.title[0].isupper()
        assert not problem.title.endswith(".")
        assert problem.remedy.endswith(".")


class TestExceptions:
    @pytest.mark.parametrize("kind", [ConfigError, PolicyError, ServerError])
    def test_form_one_tree(self, kind: type[WeirError]) -> None:
        error = kind(errors.BAD_VALUE, "x is not y.")
        assert isinstance(error, WeirError)
        assert (error.code, error.detail, error.problem) == ("WEIR-CONFIG-001", "x is not y.", errors.BAD_VALUE)
        assert str(error) == errors.message(errors.BAD_VALUE, "x is not y")

    def test_a_missing_extra_names_the_command(self) -> None:
        """It is an ImportError too, so that `except ImportError` around an import catches it."""
        error = MissingExtra("yaml", "pyyaml")
        assert isinstance(error, ConfigError)
        assert isinstance(error, ImportError)
        assert "pyyaml is not installed: pip install 'otelweir[yaml]'" in str(error)


class TestMessages:
    def test_are_code_particulars_remedy_and_where_to_read_on(self) -> None:
        assert errors.message(errors.PORT_IN_USE, "127.0.0.1:4318 is in use") == (
            "WEIR-SERVER-001: 127.0.0.1:4318 is in use. "
            "Stop what listens there, or choose another port with --port. "
            "See docs/troubleshooting.md#weir-server-001"
        )


class TestWarnings:
    def test_are_given_once_for_each_problem_and_detail(self, caplog: pytest.LogCaptureFixture) -> None:
        for detail in ("a", "a", "b"):
            errors.warn(errors.BAD_VALUE, detail)
        errors.warn(errors.UNKNOWN_SETTING, "a")
        assert len(warnings(caplog)) == 3
        assert {record.levelno for record in caplog.records} == {logging.WARNING}

    def test_are_bounded_in_number(self, caplog: pytest.LogCaptureFixture) -> None:
        """A detail that differs each time must neither flood the log nor fill the memory."""
        for number in range(3000):
            errors.warn(errors.BAD_VALUE, str(number))
        assert len(warnings(caplog)) <= 1001

    def test_can_carry_the_traceback(self, caplog: pytest.LogCaptureFixture) -> None:
        errors.warn(errors.CAPTURE_FAILED, "boom", exc_info=ValueError("boom"))
        assert caplog.records[0].exc_info

    def test_from_many_threads_are_still_given_once(self, caplog: pytest.LogCaptureFixture) -> None:
        barrier = threading.Barrier(8)

        def warn() -> None:
            barrier.wait()
            errors.warn(errors.BAD_VALUE, "a")

        threads = [threading.Thread(target=warn) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(warnings(caplog)) == 1

    def test_work_in_a_child_whose_parent_was_warning_as_it_forked(self) -> None:
        with errors._saying:
            child = os.fork()
            if child == 0:
                errors.warn(errors.BAD_VALUE, "from the child")
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


class TestTrouble:
    def test_is_told_once_while_it_lasts_and_anew_when_it_returns(self, caplog: pytest.LogCaptureFixture) -> None:
        trouble = errors.Trouble()
        for _ in range(2):
            trouble.say(errors.POLICY_UNREADABLE, "a")
        assert "WEIR-POLICY-001" in repr(trouble)
        trouble.over()
        trouble.say(errors.POLICY_UNREADABLE, "a")
        assert len(warnings(caplog)) == 2
