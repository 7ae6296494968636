"""A day of a busy service, compressed in time: memory and disk stay flat, and an outage leaves nothing behind.

    python -m benchmarks.day [--records N] [--rate N] [--json]

A million records an hour are 24 million a day; `--records 24000000` has them all, and takes as long as the rate says.
Half of them are spans, half log records, made by a process with Weir as `configure()` sets it up, at a steady pace many
times that of the real day. From 40 % to 50 % of the records the server answers 503. Once a second the resident memory
of the process and the bytes in the spool's folder are read.

Printed: medians over the first quarter of the run (but its first fifth, when imports and caches come) and over the
last, what was most during the outage and in the whole run, and slopes within the two quarters. Nothing is extrapolated.
All records have to arrive.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import linear_regression, median
from typing import NamedTuple

from benchmarks.delivery import log_calls, spans_ending, weir
from benchmarks.harness import arguments
from benchmarks.sink import ROOT, Sink

DAY = 24_000_000
OUTAGE = (0.4, 0.5)


class Sample(NamedTuple):
    """One look from outside.

    Attributes:
        made: Records that the process had made, in millions.
        memory_mb: Its resident memory.
        disk_mb: Bytes of the spool's folder.
    """

    made: float
    memory_mb: float
    disk_mb: float


def application(endpoint: str, records: int, rate: int) -> None:
    """Make records at a pace, telling how many there are; then wait until all have arrived."""
    flush = weir(endpoint)
    spans, calls = spans_ending(), log_calls()
    tick = max(2, rate // 100)
    began = time.perf_counter()
    for number in range(0, records, tick):
        time.sleep(max(0.0, began + number / rate - time.perf_counter()))
        for _ in range(tick // 2):
            next(spans)()
            next(calls)()
        print(number, flush=True)
    if not flush():
        raise SystemExit("not everything arrived")


def sample(process: int, folder: str, made: int) -> Sample:
    """Look at a process and its folder."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    disk = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                disk += (Path(place) / name).stat().st_blocks * 512
            except OSError:
                pass  # gone since
    return Sample(made / 1e6, int(status.split("VmRSS:")[1].split()[0]) / 1024, disk / 2**20)


def watched(sink: Sink, records: int, rate: int) -> list[Sample]:
    """Run the process; what was seen of it, second by second, as long as it made records."""
    samples: list[Sample] = []
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "WEIR_"))}
    with tempfile.TemporaryDirectory() as folder:
        environ |= {"WEIR_SPOOL_DIR": folder, "WEIR_LOG_SAMPLING": "off", "OTEL_METRICS_EXPORTER": "none"}
        command = [sys.executable, "-m", "benchmarks.day", "application", sink.endpoint, str(records), str(rate)]
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        down, next_look = False, 0.0
        for line in process.stdout:
            made = int(line)
            if down != (OUTAGE[0] <= made / records < OUTAGE[1]):
                down = not down
                sink.serve(not down)
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + 1.0
                samples.append(sample(process.pid, folder, made))
        if process.wait():
            raise SystemExit(process.returncode)
    return samples


def slope(samples: list[Sample], of: str) -> float:
    """Megabytes by which something grows in an hour of the day, a million records."""
    return linear_regression([each.made for each in samples], [getattr(each, of) for each in samples]).slope


def main() -> None:
    if len(sys.argv) == 5 and sys.argv[1] == "application":
        application(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        return
    options = arguments(__doc__, records=3_000_000, rate=10_000)
    tick = max(2, options.rate // 100) // 2 * 2
    records = options.records // tick * tick
    with Sink() as sink:
        samples = watched(sink, records, options.rate)
        arrived = sum(sink.records().values())
    assert arrived == records, f"{arrived} of {records} arrived"
    end = records / 1e6
    first = [each for each in samples if 0.05 * end < each.made < 0.25 * end]
    outage = [each for each in samples if OUTAGE[0] * end <= each.made < OUTAGE[1] * end]
    last = [each for each in samples if each.made >= 0.75 * end]
    rows = []
    for of in ("memory_mb", "disk_mb"):
        before, after = (median(getattr(each, of) for each in part) for part in (first, last))
        most = max(getattr(each, of) for each in samples)
        during = max(getattr(each, of) for each in outage)
        steep = [slope(part, of) for part in (first, last)]
        rows.append(
            {"of": of, "first": before, "outage": during, "most": most, "last": after, "ratio": after / before}
            | {"first_slope": steep[0], "last_slope": steep[1]}
        )
    normal = 1.5 * max(each.disk_mb for each in first)
    back = next((each.made for each in samples if each.made > OUTAGE[1] * end and each.disk_mb <= normal), None)
    if options.json:
        told = {"records": records, "rate": options.rate, "rows": rows, "disk_back_at": back}
        print(json.dumps(told | {"samples": [each._asdict() for each in samples]}))
        return
    print(f"{records:,} records, all arrived; {records / DAY:.0%} of a day")
    print(f"{'':10}  first quarter  outage, most  run, most  last quarter  last/first  slopes, MB a million")
    for row in rows:
        print(
            f"{row['of']:10}  {row['first']:13.1f}  {row['outage']:12.1f}  {row['most']:9.1f}  {row['last']:12.1f}"
            f"  {row['ratio']:10.2f}  {row['first_slope']:+.2f}, {row['last_slope']:+.2f}"
        )
    where = "not within the run" if back is None else f"after {back / end:.0%} of the run"
    print(f"the outage ended after {OUTAGE[1]:.0%}; the disk was back {where}")


if __name__ == "__main__":
    main()
