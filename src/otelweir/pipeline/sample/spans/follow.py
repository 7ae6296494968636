"""The policy file of a sampler, followed while the service runs.

Import this file only when there is a policy: it brings pydantic.
"""

from __future__ import annotations

import threading
import time
import weakref
from pathlib import Path
from typing import Final, Protocol

from otelweir import errors
from otelweir.pipeline.sample.logs.policy_file import PolicyFile
from otelweir.pipeline.sample.spans.rules import TraceRules

POLL_S: Final = 1.0
"""How often the file is looked at."""


class Follower(Protocol):
    """Whoever has rules that may change."""

    def apply(self, rules: TraceRules) -> None: ...


class PolicyFollower:
    """Tells a sampler what a policy file says about traces, now and whenever it changes.

    A file that is bad or missing leaves the last good rules, and is warned of. The thread is a daemon, and ends when
    the sampler is gone.

    Args:
        path: Of the file.
        sampler: Whom to tell.
    """

    def __init__(self, path: str, sampler: Follower) -> None:
        self._path = path
        self._file = PolicyFile(path)
        self._sampler = weakref.ref(sampler)
        self._now = TraceRules()

    def __repr__(self) -> str:
        return f"<PolicyFollower {self._file!r}>"

    def look(self) -> bool:
        """Read the file if it has changed; False when there is nobody to tell any more."""
        sampler = self._sampler()
        if sampler is None:
            return False
        policy = self._file.news()
        rules = self._now if policy is None else policy.trace_rules(Path(self._path).name)
        if rules != self._now:
            self._now = rules
            sampler.apply(rules)
        return True

    def watch(self) -> None:
        """Look from now on; to be called again in a forked child, as threads do not survive that."""
        try:
            threading.Thread(target=self._watch, name="weir-trace-policy", daemon=True).start()
        except RuntimeError:
            pass  # the interpreter is about to end

    def _watch(self) -> None:
        found = True
        while found:
            time.sleep(POLL_S)
            try:
                found = self.look()
            except Exception as error:  # noqa: BLE001 - a mistake of ours must not end the watch
                errors.warn(errors.POLICY_UNREADABLE, f"{self._path}: reading it failed: {type(error).__name__}")
