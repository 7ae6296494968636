"""The identity of live records: real programs, their call sites as the truth.

    python benchmarks/live_patterns.py [PROGRAM ...] [--venv DIR] [--errors N] [--json] [--jobs N]

Each program of `live/programs/` runs in a process of its own, in a temporary environment with the packages it names,
against servers on loopback, with the bridge on and sampling in dry-run. `live/probe.py` decides on every record in both
ways, early (from the calling frame, before there is a record) and by the record (from its file and line), and says what
the true group is: the call site and its format string. Two ways must never give two patterns; the exit code says so.

GA     share of the records whose pattern holds exactly the records of one true group
FGA    F1 of patterns over true groups: a pattern counts if it is exactly a true group
1 2 3  share of the records by grade of identity: format string, source, text
none   share of the records that have no true format, because the message is a value; they are left out
file   cost of the first record of a file, median and 99th percentile over all programs, in µs of CPU time
site   the same for the first record of each further call site

`--venv` keeps the environment for the next run. `--errors N` shows the N largest wrong groups of each program.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

HERE = Path(__file__).parent
PROGRAMS = HERE / "live" / "programs"
WAYS = ("early", "record")
TIMEOUT_S = 180

Note: TypeAlias = "dict[str, Any]"


class Score(NamedTuple):
    ga: float
    fga: float


class Result(NamedTuple):
    """What one program's records say.

    Attributes:
        notes: Those with a true format.
        records: How many there were.
        groups: True groups.
        differing: Records with two patterns, one in each way.
    """

    name: str
    notes: list[Note]
    records: int
    groups: int
    grades: dict[int, float]
    scores: dict[str, Score]
    differing: int
    first_of_file_us: list[float]
    first_of_site_us: list[float]


def true_group(note: Note) -> tuple[str, int, str]:
    return note["path"], note["line"], note["format"]


def score(truth: Sequence[object], found: Sequence[object]) -> Score:
    """How well groups were found. Both sequences name the group of each record."""
    members: dict[object, set[int]] = defaultdict(set)
    patterns: dict[object, set[int]] = defaultdict(set)
    for number, (group, pattern) in enumerate(zip(truth, found, strict=True)):
        members[group].add(number)
        patterns[pattern].add(number)
    exact = [records for records in patterns.values() if members[truth[next(iter(records))]] == records]
    precision, recall = len(exact) / len(patterns), len(exact) / len(members)
    return Score(sum(map(len, exact)) / len(truth), 2 * precision * recall / (precision + recall) if exact else 0.0)


def needs(program: Path) -> list[str]:
    found = re.search(r"^# needs: (.*)$", program.read_text(), re.MULTILINE)
    return found[1].split() if found else []


def environment(folder: Path, programs: Iterable[Path]) -> Path:
    """A Python with this project and the packages of the programs."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run(["uv", "venv", "-q", "--python", sys.executable, str(folder)], check=True)
    packages = sorted({package for program in programs for package in needs(program)})
    subprocess.run(
        ["uv", "pip", "install", "-q", "--python", str(python), "-e", str(HERE.parent), *packages], check=True
    )
    return python


def run(python: Path, program: Path) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder, "notes.jsonl")
        work = Path(folder, "work")
        work.mkdir()
        # Without variables of the caller's, which change what programs log.
        variables = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        done = subprocess.run(
            [str(python), str(HERE / "live" / "probe.py"), str(notes), str(program)],
            cwd=work,
            env={**variables, "NO_PROXY": "*"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode or "WEIR-" in done.stderr:
            raise SystemExit(f"{program.stem} failed:\n{done.stderr[-4000:]}")
        return result(program.stem, [json.loads(line) for line in notes.read_text().splitlines()])


def result(name: str, everything: list[Note]) -> Result:
    for note in everything:
        note["record"], note["record_grade"] = note.pop("late"), note.pop("late_grade")
        # Where the early way does not apply, as with `stacklevel`, the record decides.
        note.setdefault("early", note["record"])
        note["early_grade"] = note.get("early_grade", note["record_grade"])
    notes = [note for note in everything if note["how"] != "variable"]
    truth = [true_group(note) for note in notes]
    grades = Counter(note["early_grade"] for note in everything)
    return Result(
        name,
        notes,
        len(everything),
        len(set(truth)),
        {grade: grades[grade] / len(everything) for grade in (1, 2, 3)},
        {way: score(truth, [note[way] for note in notes]) for way in WAYS},
        sum(note["early"] != note["record"] for note in everything),
        [note["first_of_file_us"] for note in everything if "first_of_file_us" in note],
        [note["first_of_site_us"] for note in everything if "first_of_site_us" in note],
    )


def errors(found: Result, most: int) -> list[str]:
    """The largest wrong groups: true ones that were split, and patterns that hold several."""
    lines: list[tuple[int, str]] = []
    by_truth: dict[object, list[Note]] = defaultdict(list)
    by_pattern: dict[object, list[Note]] = defaultdict(list)
    for note in found.notes:
        by_truth[true_group(note)].append(note)
        by_pattern[note["early"]].append(note)
    for notes in by_truth.values():
        samples = {note["early"]: note["message"] for note in notes}
        if len(samples) > 1:
            text = " | ".join(map(repr, list(samples.values())[:3]))
            lines.append((len(notes), f"split into {len(samples)}: {place(notes[0])}: {text}"))
    for pattern, notes in by_pattern.items():
        groups = {true_group(note): note for note in notes}
        if len(groups) > 1:
            text = " | ".join(map(place, list(groups.values())[:4]))
            lines.append((len(notes), f"merged {len(groups)} as {pattern}: {text}"))
    return [f"  {count:6} records {line}" for count, line in sorted(lines, reverse=True)[:most]]


def place(note: Note) -> str:
    path = re.split(r"site-packages/|lib/python[\d.]+/|programs/", note["path"])[-1]
    return f"{path}:{note['line']} {note['format'][:80]!r}"


def percentiles(values: Sequence[float]) -> dict[str, float]:
    if len(values) < 2:
        return {}
    cuts = statistics.quantiles(values, n=100)
    return {"p50": round(cuts[49], 1), "p99": round(cuts[98], 1), "count": len(values)}


def summary(results: Sequence[Result]) -> dict[str, Any]:
    return {
        "programs": {
            one.name: {
                "records": one.records,
                "groups": one.groups,
                "no_format": round(1 - len(one.notes) / one.records, 4),
                "grades": {str(grade): round(share, 4) for grade, share in one.grades.items()},
                "differing": one.differing,
                **{way: {"ga": round(s.ga, 4), "fga": round(s.fga, 4)} for way, s in one.scores.items()},
            }
            for one in results
        },
        "mean": {
            way: {
                "ga": round(statistics.fmean(one.scores[way].ga for one in results), 4),
                "fga": round(statistics.fmean(one.scores[way].fga for one in results), 4),
            }
            for way in WAYS
        },
        "first_of_file_us": percentiles([cost for one in results for cost in one.first_of_file_us]),
        "first_of_site_us": percentiles([cost for one in results for cost in one.first_of_site_us]),
    }


def table(results: Sequence[Result], totals: dict[str, Any]) -> str:
    lines = [
        f"{'':12}{'records':>8}{'groups':>8}{'none':>7}{'1':>7}{'2':>7}{'3':>7}"
        "   early: GA    FGA   record: GA    FGA  differ"
    ]
    for one in results:
        (early, record), grades = (one.scores[way] for way in WAYS), one.grades
        lines.append(
            f"{one.name:12}{one.records:8}{one.groups:8}{1 - len(one.notes) / one.records:7.1%}"
            f"{grades[1]:7.1%}{grades[2]:7.1%}{grades[3]:7.1%}"
            f"{early.ga:12.4f}{early.fga:7.4f}{record.ga:13.4f}{record.fga:7.4f}{one.differing:8}"
        )
    early, record = (Score(**totals["mean"][way]) for way in WAYS)
    lines.append(f"{'mean':56}{early.ga:12.4f}{early.fga:7.4f}{record.ga:13.4f}{record.fga:7.4f}")
    for what in ("file", "site"):
        cost = totals[f"first_of_{what}_us"]
        lines.append(
            f"first record of a {what}, µs: p50 {cost.get('p50')}, p99 {cost.get('p99')} ({cost.get('count')} of them)"
        )
    return "\n".join(lines)


def main() -> int:
    names = sorted(path.stem for path in PROGRAMS.glob("*.py"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help=f"of {', '.join(names)}; default: all")
    parser.add_argument("--venv", type=Path, help="an environment to make, or to use again")
    parser.add_argument("--errors", type=int, default=0, metavar="N", help="show the N largest wrong groups")
    parser.add_argument("--json", action="store_true", help="print one object instead of a table")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="programs at a time; costs need one")
    options = parser.parse_args()
    if unknown := set(options.programs) - set(names):
        parser.error(f"no such program: {', '.join(sorted(unknown))}")
    programs = [PROGRAMS / f"{name}.py" for name in options.programs or names]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        python = environment((options.venv or Path(folder, "venv")).absolute(), programs)
        results = list(pool.map(lambda program: run(python, program), programs))
    totals = summary(results)
    print(json.dumps(totals, indent=2) if options.json else table(results, totals))
    for one in results if options.errors else ():
        for line in (lines := errors(one, options.errors)) and [one.name, *lines]:
            print(line, file=sys.stderr if options.json else sys.stdout)
    return int(any(one.differing for one in results))


if __name__ == "__main__":
    sys.exit(main())
