"""What the tests of this folder share."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest


@pytest.fixture
def in_a_child() -> Callable[[Callable[[], bool]], bool]:
    """Asks a question in a forked child, and gives its answer; an exception there is a no."""

    def ask(question: Callable[[], bool]) -> bool:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if question() else 1
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    return ask
