"""Appending a record to the spool against writing it to a file, in the same run. The promise is at most 1.5 µs.

    python -m benchmarks.spool [--rounds N] [--times N]

The record has 300 bytes and is encoded already. The peer is one `os.write` of it to a file: no frame, no checksum, no
lock. Every thousand records the spool is emptied and looked after, as the courier's thread does it in a process; this
is not part of the measurement. The change from a full file to the next is.

The last row is another matter: how long one in a thousand appends takes (by the clock, at least) while a courier takes,
joins and finishes all the while, and the application computes without a pause. The peer suffers the same courier.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import arguments, by_turns, ratio, report, timed

from otelweir.pipeline.spool import Group, Spool, join

GROUP = Group(b"r" * 400, b"s" * 40)
RECORD = os.urandom(300)


def main() -> None:
    options = arguments(__doc__, rounds=15, times=20_000)
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "shop", max_bytes=2**30)
        file = os.open(Path(folder) / "file", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        encoded = (GROUP, RECORD)

        def empty() -> None:
            while frames := spool.take("logs", 2**24):
                join((frame.group, frame.record) for frame in frames)
                spool.done(frames)
            spool.sync()

        def appends(times: int) -> float:
            def work() -> None:
                append = spool.append
                for _ in range(1000):
                    append("logs", encoded)

            took = 0.0
            for _ in range(times // 1000):
                took += timed(work)
                empty()
            return took

        def writes(times: int) -> float:
            def work() -> None:
                write = os.write
                for _ in range(1000):
                    write(file, RECORD)

            took = sum(timed(work) for _ in range(times // 1000))
            os.ftruncate(file, 0)
            return took

        def one_in_a_thousand(work: Callable[[], object]) -> float:
            """Of a call, in seconds, while the courier is busy."""
            over = threading.Event()

            def courier() -> None:
                while not over.is_set():
                    spool.append("traces", encoded)
                    empty()
                    time.sleep(0.005)

            thread = threading.Thread(target=courier)
            thread.start()
            clock = time.perf_counter
            took = []
            for _ in range(20_000):
                began = clock()
                work()
                ended = clock()
                took.append(ended - began)
                while clock() < ended + 20e-6:
                    pass
            over.set()
            thread.join()
            return sorted(took)[-len(took) // 1000]

        contenders: dict[str, Callable[[int], float]] = {"Spool.append": appends, "os.write": writes}
        found = by_turns(contenders, options.rounds, options.times)
        slow: dict[str, Callable[[int], float]] = {
            "Spool.append, one in 1000": lambda _: one_in_a_thousand(lambda: spool.append("logs", encoded)),
            "os.write, one in 1000": lambda _: one_in_a_thousand(lambda: os.write(file, RECORD)),
        }
        found |= by_turns(slow, 3, 1)
        spool.close()
        os.close(file)
    rows = [
        ratio(found, "Spool.append", "os.write"),
        ratio(found, "Spool.append, one in 1000", "os.write, one in 1000"),
    ]
    report(rows, options.json)


if __name__ == "__main__":
    main()
