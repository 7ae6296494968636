"""Appending a record to the spool against writing it to a file, in the same run.

    python -m benchmarks.spool [--rounds N] [--times N]

The record has 300 bytes and is encoded already. The peer is one `os.write` of it to a file: no frame, no checksum, no
lock. Both include what a full file costs: the spool's next segment, the peer's nothing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import arguments, by_turns, ratio, report, timed

from otelweir.pipeline.spool import Group, Spool

GROUP = Group(b"r" * 400, b"s" * 40)
RECORD = os.urandom(300)


def main() -> None:
    options = arguments(__doc__, rounds=15, times=20_000)
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "shop", max_bytes=2**30)
        file = os.open(Path(folder) / "file", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        encoded = (GROUP, RECORD)

        def appends(times: int) -> float:
            def work() -> None:
                append = spool.append
                for _ in range(times):
                    append("logs", encoded)

            took = timed(work)
            while frames := spool.take("logs", 2**24):
                spool.done(frames)
            return took

        def writes(times: int) -> float:
            def work() -> None:
                write = os.write
                for _ in range(times):
                    write(file, RECORD)

            took = timed(work)
            os.ftruncate(file, 0)
            return took

        contenders: dict[str, Callable[[int], float]] = {"Spool.append": appends, "os.write": writes}
        found = by_turns(contenders, options.rounds, options.times)
        spool.close()
        os.close(file)
    report([ratio(found, "Spool.append", "os.write", 1.0)], options.json)


if __name__ == "__main__":
    main()
