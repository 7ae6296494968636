"""The last good policy of a URL, on disk, so that a restart during an outage has a policy.

Format: one JSON object a URL, in a file named after a hash of the URL: `version` (1), `etag` (text or null), `fetched`
(seconds since 1970), `body` (the document as it came) and `digest` (BLAKE2b of the body, hexadecimal). The file is
replaced as a whole, so a reader sees the old one or the new one. One that cannot be understood is set aside under a
name ending in `.corrupt`, for whoever wants to know why; Weir deletes none.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

from otelweir import errors
from otelweir.pipeline.sample.logs.document import MAX_BYTES

_VERSION: Final = 1
_MAX_FILE: Final = 8 * MAX_BYTES  # JSON may write one byte as six


@dataclass(frozen=True, slots=True)
class Cached:
    """A policy that was good once, and the ETag to ask with."""

    body: bytes
    etag: str | None
    fetched_s: float


def default_folder(environ: Mapping[str, str]) -> str:
    """`otelweir` below `$XDG_CACHE_HOME` or `~/.cache`."""
    base = environ.get("XDG_CACHE_HOME", "")
    # As the XDG specification says, a path that is not absolute is ignored.
    return str(Path(base if Path(base).is_absolute() else "~/.cache", "otelweir"))


class PolicyCache:
    """The place of one URL's policy.

    Args:
        folder: Made with access for the owner only when it does not exist; `~` stands for the home folder.
        url: Whose policy it is.
    """

    def __init__(self, folder: str, url: str, *, wall: Callable[[], float] = time.time) -> None:
        self._folder = Path(folder)
        self._name = f"policy-{blake2b(url.encode('utf-8', 'surrogatepass'), digest_size=12).hexdigest()}.json"
        self._wall = wall
        self._trouble = errors.Trouble()

    def __repr__(self) -> str:
        return f"<PolicyCache {self._folder / self._name}>"

    def load(self) -> Cached | None:
        """What is there; None when there is nothing of use."""
        try:
            path = self._path()
            with path.open("rb") as file:
                raw = file.read(_MAX_FILE + 1)
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, ValueError) as error:
            self._say("read", error)
            return None
        try:
            return _understood(raw)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self.set_aside(f"it cannot be understood ({type(error).__name__})")
            return None

    def store(self, body: bytes, etag: str | None) -> bool:
        """Keep a good policy; False when that failed."""
        entry = {
            "version": _VERSION,
            "etag": etag,
            "fetched": self._wall(),
            "digest": _digest(body),
            "body": body.decode("utf-8"),
        }
        try:
            path = self._path()
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".tmp", dir=path.parent)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:  # mkstemp gives 0600
                    json.dump(entry, file)
                    file.flush()
                    os.fsync(descriptor)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except (OSError, RuntimeError, ValueError) as error:
            self._say("stored", error)
            return False
        self._trouble.over()
        return True

    def set_aside(self, why: str) -> None:
        """Move the file out of the way, to a name ending in `.corrupt` that is not taken."""
        try:
            path = self._path()
            aside = path.with_name(f"{path.name}.corrupt")
            number = 1
            while aside.exists():
                number += 1
                aside = path.with_name(f"{path.name}.{number}.corrupt")
            path.rename(aside)
        except FileNotFoundError:
            return  # another process was faster
        except (OSError, RuntimeError, ValueError) as error:
            self._say("set aside", error)
            return
        self._trouble.say(errors.POLICY_CACHE, f"{path}: {why}; it is now {aside.name}")

    def _path(self) -> Path:
        return self._folder.expanduser() / self._name

    def _say(self, what: str, error: Exception) -> None:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self._trouble.say(errors.POLICY_CACHE, f"{self._folder / self._name} cannot be {what}: {why}")


def _understood(raw: bytes) -> Cached:
    if len(raw) > _MAX_FILE:
        raise ValueError
    entry = json.loads(raw)
    body, etag = entry["body"].encode("utf-8"), entry["etag"]
    if entry["version"] != _VERSION or entry["digest"] != _digest(body) or not isinstance(etag, str | None):
        raise ValueError
    return Cached(body, etag, float(entry["fetched"]))


def _digest(body: bytes) -> str:
    return blake2b(body, digest_size=16).hexdigest()
