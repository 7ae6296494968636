"""A policy file that is read again when it changes."""

from __future__ import annotations

import os
import stat
import time
from hashlib import blake2b
from pathlib import Path
from typing import Final

from otelweir import errors
from otelweir.pipeline.sample.logs.document import MAX_BYTES
from otelweir.pipeline.sample.logs.policy import Policy, parse
from otelweir.pipeline.sample.logs.rules import Overlay
from otelweir.variables import scrubbed

_JUST_NOW_S: Final = 0.1


class PolicyFile:
    """The last good policy of a file.

    A change shows in what `stat` says about the file that the path leads to, so a file written in place, one moved over
    the old one, and a symbolic link turned to another folder (as Kubernetes does for a ConfigMap) are all seen.

    Attributes:
        overlay: None until the file was good once.
    """

    def __init__(self, path: str) -> None:
        self.overlay: Overlay | None = None
        self._path = path
        self._stamp: tuple[int, ...] | None = None
        self._digest: bytes | None = None
        self._trouble = errors.Trouble()

    def __repr__(self) -> str:
        return f"<PolicyFile {self._path!r} {'good once' if self.overlay else 'never good'}, {self._trouble!r}>"

    def look(self) -> bool:
        """Read the file if it changed; True when that changed the policy."""
        policy = self.news()
        if policy is None:
            return False
        overlay = policy.overlay(Path(self._path).name)
        changed = overlay != self.overlay
        self.overlay = overlay
        return changed

    def news(self) -> Policy | None:
        """What the file says, if it changed and is good; what is wrong with it is warned of."""
        try:
            if self._stamp is not None and _stamp(Path(self._path).stat()) == self._stamp:
                return None
            data, self._stamp = _contents(self._path)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            self._stamp = self._digest = None
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._trouble.say(errors.POLICY_UNREADABLE, scrubbed(f"{self._path}: {why}"))
            return None
        digest = blake2b(data).digest()
        if digest == self._digest:
            return None
        self._digest = digest
        try:
            policy = parse(data, self._path)
        except errors.PolicyError as error:
            self._trouble.say(error.problem, scrubbed(error.detail))
            return None
        self._trouble.over()
        return policy


def _stamp(seen: os.stat_result) -> tuple[int, ...]:
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


def _contents(path: str) -> tuple[bytes, tuple[int, ...] | None]:
    """The file's bytes, and its stamp from before they were read; None when it may change without showing."""
    # Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode):
            raise OSError(0, "it is not a regular file")
        data = file.read(MAX_BYTES + 1)
    # File times advance in steps: a second change within one step would leave the stamp as it is.
    return data, None if abs(time.time() - seen.st_mtime) < _JUST_NOW_S else _stamp(seen)
