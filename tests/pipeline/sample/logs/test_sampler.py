"""The sampler keeps its promises: errors stay, counts are true, no pattern disappears."""

from __future__ import annotations

import importlib
import math
import os
import random
import statistics
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from otelweir.pipeline.sample.logs.rules import Rule, Rules
from otelweir.pipeline.sample.logs.sampler import IDLE_S, MAX_MESSAGES, MAX_STREAMS, LogSampler
from otelweir.pipeline.sample.logs.text import OVERFLOW
from otelweir.signals import SEVERITIES, Severity, Verdict
from otelweir.testing import Clock

LEVELS = {"trace": 5, "debug": 10, "info": 20, "warn": 30, "error": 40, "fatal": 50}


def rules(**changes: Any) -> Rules:
    given: dict[str, Any] = {
        "mode": "on",
        "rates": {"debug": 0.05, "info": 0.2, "warn": 0.5},
        "first": 10,
        "window_s": 60.0,
        **changes,
    }
    return Rules(**given)


def sampler(seed: int = 0, clock: Clock | None = None, max_patterns: int = 10_000, **changes: Any) -> LogSampler:
    return LogSampler(
        rules(**changes), clock=clock or Clock(1000.0), random=random.Random(seed).random, max_patterns=max_patterns
    )


def log(on: LogSampler, msg: object, *args: object, level: int = 20, logger: str = "app") -> Verdict:
    """A logging call with a call site of its own for each line that calls this."""
    frame = sys._getframe(1)
    return on.call(logger, level, msg, args, frame.f_code, frame.f_lasti)


def record(
    on: LogSampler, msg: object, *args: object, level: int = 20, logger: str = "app", line: int = 1, path: str = "/x.py"
) -> Verdict:
    """A record that is already made, by a call site whose source is gone."""
    return on.site(logger, level, msg, args, path, line, "work")


def weight(verdicts: Iterable[Verdict]) -> float:
    return math.fsum(float(v["weir.sample.weight"]) for v in verdicts if v is not None)  # type: ignore[arg-type]


class TestErrors:
    @given(
        st.sampled_from([40, 41, 45, 50, 60]),
        st.floats(0, 1),
        st.sampled_from(["on", "dry-run"]),
        st.one_of(st.none(), st.floats(0.1, 10)),
    )
    def test_every_error_is_kept_whatever_the_policy_says(
        self, level: int, rate: float, mode: str, budget: float | None
    ) -> None:
        clock = Clock()
        on = sampler(
            clock=clock,
            mode=mode,
            budget_per_s=budget,
            rates=dict.fromkeys(SEVERITIES, rate),
            rules=(Rule("all", rate=rate, template="*"),),
        )
        verdicts = []
        for number in range(200):
            clock.advance(0.05)
            verdicts.append(log(on, "failed %s", number, level=level))
        assert None not in verdicts
        assert weight(verdicts) == 200


class TestFirstRecords:
    def test_the_first_of_every_pattern_in_each_window_are_kept(self) -> None:
        clock = Clock()
        on = sampler(clock=clock, rates={"info": 0.0})
        for _ in range(3):
            kept = [log(on, "hello %s", number) is not None for number in range(50)]
            assert kept == [True] * 10 + [False] * 40
            clock.advance(60.0)

    def test_a_window_begins_with_its_first_record(self) -> None:
        """Not with the clock's minute, where all patterns would come at once."""
        clock = Clock(59.0)
        on = sampler(clock=clock, rates={"info": 0.0}, first=1)
        kept = []
        for _ in range(3):
            kept.append(log(on, "hello %s", 1) is not None)
            clock.advance(30.0)
        assert kept == [True, False, True]

    def test_a_flood_of_one_pattern_costs_the_others_nothing(self) -> None:
        on = sampler()
        for number in range(10_000):
            log(on, "flood %s", number)
        assert all(log(on, f"quiet {number}") is not None for number in range(10))


class TestWeights:
    @pytest.mark.parametrize("rate", [0.5, 0.2, 0.05, 0.013])
    def test_the_sum_of_weights_is_unbiased(self, rate: float) -> None:
        """Over many starts, the mean of the estimate is the truth, and each estimate is close to it."""
        truth = 777
        sums = []
        for seed in range(400):
            on = sampler(seed, rates={"info": rate})
            sums.append(weight(log(on, "hello %s", number) for number in range(truth)))
        error = statistics.stdev(sums) / math.sqrt(len(sums)) if len(set(sums)) > 1 else 0.0
        assert abs(statistics.mean(sums) - truth) <= 4 * error + 1e-6
        assert all(abs(found - truth) <= 1 / rate for found in sums)

    def test_each_record_is_kept_with_the_same_probability(self) -> None:
        """A pattern that repeats, as a cycle of three users does, must not fall in step with the sampling."""
        counts = Counter[int]()
        runs = 3000
        for seed in range(runs):
            on = sampler(seed, rates={"info": 0.25}, first=1)
            for number in range(13):
                if log(on, "hello %s", number) is not None:
                    counts[number] += 1
        assert counts.pop(0) == runs
        deviation = 4 * math.sqrt(runs * 0.25 * 0.75)
        assert all(abs(count - runs * 0.25) <= deviation for count in counts.values())

    def test_the_sum_is_unbiased_for_each_severity_and_pattern(self) -> None:
        truth: Counter[tuple[str, str]] = Counter()
        found: Counter[tuple[str, str]] = Counter()
        squares: Counter[tuple[str, str]] = Counter()
        chance = random.Random(7)
        runs = 150
        for seed in range(runs):
            on = sampler(seed, first=2)
            sums: Counter[tuple[str, str]] = Counter()
            for _ in range(600):
                severity = chance.choice(["debug", "info", "warn", "error"])
                name = chance.choice(["a", "a", "a", "b"])
                verdict = log(on, name + " %s", 1, level=LEVELS[severity])
                truth[severity, name] += 1
                sums[severity, name] += weight([verdict])  # type: ignore[assignment]
            for key, value in sums.items():
                found[key] += value
                squares[key] += value * value
        for key, total in truth.items():
            variance = max(0.0, squares[key] / runs - (found[key] / runs) ** 2)
            assert abs(found[key] - total) <= 4 * math.sqrt(variance * runs) + 1e-6, key

    def test_the_threshold_says_what_the_weight_says(self) -> None:
        on = sampler(rates={"info": 0.25}, first=1)
        kept = [v for number in range(100) if (v := log(on, "hello %s", number)) is not None]
        assert [v.get("sampling.threshold") for v in kept[:2]] == [None, "c"]
        assert kept[1]["weir.sample.weight"] == 4.0

    def test_weights_stay_true_while_the_rate_changes(self) -> None:
        sums = []
        for seed in range(300):
            on = sampler(seed, rates={"info": 0.5}, first=1)
            verdicts = []
            for step, rate in enumerate((0.5, 0.1, 0.03, 0.3)):
                if step:
                    on.apply(rules(rates={"info": rate}, first=1))
                verdicts += [log(on, "hello %s", number) for number in range(200)]
            sums.append(weight(verdicts))
        assert statistics.mean(sums) == pytest.approx(800, abs=4 * statistics.stdev(sums) / math.sqrt(300))


class TestPolicy:
    def test_the_most_specific_rule_decides(self) -> None:
        on = sampler(
            first=1,
            rates={"info": 1.0},
            rules=(Rule("quiet logger", rate=0.0, logger="urllib3"), Rule("but this", rate=1.0, template="retry <*>")),
        )
        for _ in range(2):
            noise = [log(on, "connect %s", 1, logger="urllib3.pool") for _ in range(5)]
            retry = [log(on, "retry %s", 1, logger="urllib3.pool") for _ in range(5)]
        assert [v is not None for v in noise] == [False] * 5
        assert all(v is not None and v["weir.sample.rule"] == "but this" for v in retry)

    def test_one_pattern_in_two_loggers_may_have_two_rates(self) -> None:
        on = sampler(first=1, rates={"info": 1.0}, rules=(Rule("noisy", rate=0.0, logger="noisy"),))
        found = {name: [record(on, "same %s", 1, logger=name) for _ in range(4)] for name in ("noisy", "calm")}
        assert [v is not None for v in found["noisy"]] == [True, False, False, False]
        assert None not in found["calm"]

    def test_a_new_policy_applies_at_once(self) -> None:
        on = sampler(first=1, rates={"info": 0.0})
        assert [log(on, "hello %s", n) is not None for n in range(3)] == [True, False, False]
        on.apply(rules(first=1, rates={"info": 1.0}))
        assert None not in [log(on, "hello %s", n) for n in range(5)]

    def test_a_dry_run_keeps_everything_and_says_what_it_would_have_done(self) -> None:
        on = sampler(mode="dry-run", first=1, rates={"info": 0.0})
        verdicts = [log(on, "hello %s", number) for number in range(5)]
        assert [v and v["weir.sample.decision"] for v in verdicts] == ["keep"] + ["drop"] * 4
        assert weight(verdicts) == 5
        (rollup,) = on.rollups()
        assert (rollup.seen, rollup.kept) == (5, 1)

    def test_off_keeps_everything_and_looks_at_nothing(self) -> None:
        on = sampler(mode="off")
        assert [log(on, "hello") for _ in range(100)] == [{}] * 100
        assert on.rollups() == []

    def test_events_are_kept_unless_a_rule_names_them(self) -> None:
        on = sampler(first=1, rules=(Rule("flags", rate=0.0, event="feature_flag.evaluation"),))
        kept = {
            name: [on.text("app", 9, "", name) is not None for _ in range(3)]
            for name in ("gen_ai.evaluation.result", "feature_flag.evaluation")
        }
        assert kept == {"gen_ai.evaluation.result": [True] * 3, "feature_flag.evaluation": [True, False, False]}


class TestMarks:
    def test_the_first_record_of_a_pattern_is_marked_as_new(self) -> None:
        on = sampler()
        verdicts = [log(on, "hello %s", number) for number in range(3)]
        assert [v and v.get("weir.pattern.new") for v in verdicts] == [True, None, None]

    def test_a_new_policy_makes_no_pattern_new(self) -> None:
        on = sampler()
        for _ in range(2):
            verdict = record(on, "hello %s", 1)
            on.apply(rules())
        assert verdict is not None and "weir.pattern.new" not in verdict

    def test_every_kept_record_carries_weight_template_id_and_reason(self) -> None:
        on = sampler(first=1)
        for severity, level in LEVELS.items():
            for number in range(50):
                verdict = log(on, "hello %s", number, level=level)
                if verdict is not None:
                    assert verdict["log.record.template"] == "hello <*>"
                    assert len(str(verdict["weir.pattern.id"])) == 16
                    assert verdict["weir.sample.reason"] == (
                        "error" if level >= 40 else "first" if number == 0 else "rate"
                    ), severity
                    assert verdict["weir.sample.weight"] >= 1  # type: ignore[operator]


class TestSpikes:
    def run(self, counts: list[int]) -> list[Counter[str]]:
        """Reasons of the records kept in each window."""
        clock = Clock()
        on = sampler(clock=clock, rates={"info": 0.01}, first=1)
        found = []
        for count in counts:
            verdicts = [log(on, "hello %s", number) for number in range(count)]
            found.append(Counter(str(v["weir.sample.reason"]) for v in verdicts if v is not None))
            clock.advance(60.0)
        return found

    def test_more_is_kept_of_a_pattern_that_comes_far_more_often_than_it_used_to(self) -> None:
        *before, spike, after = self.run([50, 50, 50, 50, 5000, 50])
        assert all("spike" not in window for window in before)
        assert spike["spike"] == pytest.approx(50, abs=5)  # five times the rate, for the next thousand records
        assert "spike" not in after

    def test_a_pattern_without_a_past_has_no_spike(self) -> None:
        assert all("spike" not in window for window in self.run([5000, 5000]))

    def test_a_flood_that_lasts_becomes_usual(self) -> None:
        found = self.run([50, 50, 50, 50] + [5000] * 8)
        assert found[4]["spike"] > 0
        assert all("spike" not in window for window in found[7:])


class TestBudget:
    def seconds(self, on: LogSampler, clock: Clock, rates: dict[str, int], seconds: int) -> dict[str, int]:
        """Records kept by pattern, of so many a second of each, all at once in a random order."""
        chance = random.Random(3)
        kept = Counter[str]()
        for _ in range(seconds):
            batch = [name for name, count in rates.items() for _ in range(count)]
            chance.shuffle(batch)
            for name in batch:
                clock.advance(1.0 / len(batch))
                kept[name] += record(on, name + " %s", 1, line=hash(name) % 1000) is not None
        return kept

    def test_the_kept_volume_meets_the_budget(self) -> None:
        clock = Clock()
        on = sampler(clock=clock, budget_per_s=20.0, first=1, rates={"info": 1.0})
        flows = {"flood": 500, "stream": 100, "drip": 2}
        self.seconds(on, clock, flows, 5)
        kept = self.seconds(on, clock, flows, 60)
        assert sum(kept.values()) / 60 == pytest.approx(20.0, rel=0.1)

    def test_every_pattern_gets_a_fair_share(self) -> None:
        clock = Clock()
        on = sampler(clock=clock, budget_per_s=20.0, first=1, rates={"info": 1.0})
        flows = {"flood": 500, "stream": 100, "drip": 2}
        self.seconds(on, clock, flows, 5)
        kept = self.seconds(on, clock, flows, 60)
        assert kept["drip"] >= 0.9 * 120
        assert kept["flood"] == pytest.approx(kept["stream"], rel=0.15)

    def test_a_burst_is_met_within_seconds_and_a_pause_opens_the_gate_again(self) -> None:
        clock = Clock()
        on = sampler(clock=clock, budget_per_s=50.0, first=1, rates={"info": 1.0})
        assert self.seconds(on, clock, {"burst": 40}, 10)["burst"] == 400
        self.seconds(on, clock, {"burst": 2000}, 2)
        assert self.seconds(on, clock, {"burst": 2000}, 10)["burst"] <= 1.1 * 500
        self.seconds(on, clock, {"burst": 5}, 15)
        assert self.seconds(on, clock, {"burst": 5}, 10)["burst"] == 50

    def test_a_budget_only_ever_lowers_a_rate(self) -> None:
        clock = Clock()
        on = sampler(clock=clock, budget_per_s=1000.0, first=1, rates={"info": 0.1})
        assert self.seconds(on, clock, {"flow": 100}, 20)["flow"] == pytest.approx(200, abs=12)

    def test_weights_stay_true_under_a_budget(self) -> None:
        clock = Clock()
        on = sampler(clock=clock, budget_per_s=20.0, first=1, rates={"info": 1.0})
        total = 0.0
        for _ in range(20 * 300):
            clock.advance(1 / 300)
            total += weight([record(on, "hello %s", 1)])
        assert total == pytest.approx(6000, rel=0.03)


class TestIdentity:
    def ids(self, verdicts: Iterable[Verdict]) -> list[object]:
        return [v and v["weir.pattern.id"] for v in verdicts]

    def test_a_format_string_is_one_pattern_whatever_its_arguments(self) -> None:
        on = sampler()
        assert len(set(self.ids(log(on, "user %s did %s", n, "x" * n) for n in range(9)))) == 1

    def test_an_f_string_is_one_pattern_whatever_its_values(self) -> None:
        on = sampler()
        words = ["alpha", "beta", "gamma delta", "1", ""]
        verdicts = [log(on, f"user {word} did {word}") for word in words]
        assert len(set(self.ids(verdicts))) == 1
        assert verdicts[0] is not None and verdicts[0]["log.record.template"] == "user <*> did <*>"

    def test_a_wrapper_is_told_apart_by_its_text(self) -> None:
        on = sampler()

        def wrapper(message: str) -> Verdict:
            return log(on, message)

        one, same, other = wrapper("opened file 1"), wrapper("opened file 2"), wrapper("closed the door")
        assert self.ids([one]) == self.ids([same]) != self.ids([other])

    def test_the_same_text_in_two_functions_is_two_patterns(self) -> None:
        on = sampler()

        def connect() -> Verdict:
            return log(on, "done")

        def close() -> Verdict:
            return log(on, "done")

        assert self.ids([connect()]) != self.ids([close()])

    def test_a_call_and_its_record_have_the_same_pattern(self) -> None:
        """Whether a handler wants the record decides how far it gets, and must not decide what it is."""
        on = sampler()

        def both(message: str, *args: object) -> list[object]:
            frame = sys._getframe(1)
            made = on.site("app", 20, message, args, frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
            return self.ids([on.call("app", 20, message, args, frame.f_code, frame.f_lasti), made])

        for value in ("one", "two"):
            for pair in (
                both("constant"),
                both("with %s", value),
                both(f"f-string {value}"),
            ):
                assert pair[0] == pair[1]

    def test_a_site_with_ever_new_format_strings_is_told_apart_by_text(self) -> None:
        """A prefix that an adapter puts into the format string is no template."""
        on = sampler()
        verdicts = [record(on, f"[conn {number}] sent %d bytes", number) for number in range(MAX_MESSAGES * 3)]
        assert len(set(self.ids(v for v in verdicts[MAX_MESSAGES + 1 :] if v is not None))) == 1

    def test_messages_that_are_no_text_have_a_pattern_too(self) -> None:
        on = sampler()
        for message in ({"event": "x", "n": 1}, ["a"], 5, None, ValueError("bad"), object(), {1, 2}):
            assert record(on, message) is not None

    def test_a_message_that_cannot_be_rendered_is_kept(self) -> None:
        class Broken:
            def __str__(self) -> str:
                raise RuntimeError("no")

        on = sampler()
        assert record(on, Broken()) is not None
        assert log(on, "%d items" + "", "x") is not None

    def test_a_lone_surrogate_in_a_format_string_can_be_sent(self) -> None:
        """File names bring them, and one would cost the whole batch."""
        on = sampler()
        verdict = record(on, "cannot read caf\udce9.txt: %s", "x")
        assert verdict is not None
        str(verdict["log.record.template"]).encode()

    def test_ids_are_the_same_in_every_process(self, tmp_path: Path) -> None:
        """Other hash seeds, another order of arrival, another folder: the same ids."""
        program = """
import sys
from otelweir.pipeline.sample.logs.rules import Rules
from otelweir.pipeline.sample.logs.sampler import LogSampler
on = LogSampler(Rules("on", {}, 10, 60.0))
def log(msg, *args):
    frame = sys._getframe(1)
    return on.call("app", 20, msg, args, frame.f_code, frame.f_lasti)["weir.pattern.id"]
def work(n):
    found = {}
    for step in sorted(range(4), reverse=n % 2):
        if step == 0: found[0] = log("user %s", n)
        if step == 1: found[1] = log(f"item {n} sold")
        if step == 2: found[2] = log("constant")
        if step == 3: found[3] = log(*["text of " + str(n)])
    return [found[step] for step in sorted(found)]
print([work(n) for n in map(int, sys.argv[1:])][-1])
"""
        answers = set()
        for number, seed in (("1", "0"), ("2", "77"), ("3", "random")):
            folder = tmp_path / seed
            folder.mkdir()
            (folder / "program.py").write_text(program)
            answers.add(
                subprocess.run(
                    [sys.executable, "program.py", "8", number],
                    cwd=folder,
                    env={**os.environ, "PYTHONHASHSEED": seed},
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
            )
        assert len(answers) == 1


PROGRAM = """
class Service:
    name = "svc"

    def _log(self, msg, *args):
        log.info(msg, *args)

    def _named(self, msg, *args):
        log.info("[" + self.name + "] " + msg, *args)

    def _twice(self, *args):
        self._log(*args)

    def run(self, x):
        log.info("constant")
        log.info("with %s", x)
        log.info(f"f-string {x}")
        message = f"assigned {x}"
        log.info(message)
        log.info("even" if len(x) % 2 else f"odd {x}")
        log.info(f"first {x}"); log.info(f"second {x}")
        self._log("passed %s", x)
        self._log(f"passed on {x}")
        self._named("named %s", x)
        self._named(f"named too {x}")
        self._twice(f"passed twice {x}")
        self._twice("passed twice %s", x)
        adapter.info("adapted %s", x)
        adapter.info("adapted")
        adapter.info(f"adapted f-string {x}")
        [log.info(f"in a list {x}") for _ in "1"]

class Other(Service):
    def run(self, x):
        log.info("constant")
"""


class Records:
    """A logger that decides on each record in both ways, and keeps what a handler would get."""

    def __init__(self, on: LogSampler, prefix: str = "") -> None:
        self.on = on
        self.prefix = prefix
        self.early: list[tuple[object, object]] = []
        self.recorded: list[tuple[object, object]] = []
        self.made: list[tuple[str, tuple[object, ...], str, int, str]] = []

    def info(self, msg: str, *args: object) -> None:
        frame = sys._getframe(1)
        code = frame.f_code
        msg = self.prefix + msg
        self.made.append((msg, args, code.co_filename, frame.f_lineno, code.co_name))
        made = self.on.site("app", 20, msg, args, code.co_filename, frame.f_lineno, code.co_name)
        call = self.on.call("app", 20, msg, args, code, frame.f_lasti)
        assert made is not None and call is not None
        self.early.append((call["weir.pattern.id"], call["log.record.template"]))
        self.recorded.append((made["weir.pattern.id"], made["log.record.template"]))


class TestCallSites:
    """What a program's source says about its records."""

    TEMPLATES = (
        "constant", "with <*>", "f-string <*>", "assigned <*>", "odd <*>", "first <*>", "second <*>", "passed <*>",
        "passed on <*>", "[<*>] named <*>", "[<*>] named too <*>", "passed twice <*>", "passed twice <*>",
        "adapted <*>", "adapted", "adapted f-string <*>", "in a list <*>",
    )  # fmt: skip

    def run(self, folder: Path, *values: str, service: str = "Service", module: str = "__main__") -> Records:
        path = folder / "program.py"
        path.write_text(PROGRAM)
        log = Records(sampler(rates={"info": 1.0}))
        scope: dict[str, Any] = {"__name__": module, "log": log, "adapter": log}
        exec(compile(PROGRAM, str(path), "exec"), scope)
        for number, value in enumerate(values):
            log.prefix = ""
            scope["adapter"] = adapter = Records(log.on, f"[conn {number}] ")
            adapter.early, adapter.recorded, adapter.made = log.early, log.recorded, log.made
            scope[service]().run(value)
        return log

    def test_the_template_is_the_sources(self, tmp_path: Path) -> None:
        found = self.run(tmp_path, "xy")
        assert tuple(template for _, template in found.early) == self.TEMPLATES

    def test_values_change_nothing(self, tmp_path: Path) -> None:
        """Not those of messages that went through a wrapper either, nor an adapter's prefix."""
        found = self.run(tmp_path, "one two", "gamma, delta", "xy: /var/z")
        count = len(self.TEMPLATES)
        other = self.run(tmp_path, "xy")
        texts = [template for _, template in found.early]
        assert texts[4::count] == ["even", "odd <*>", "odd <*>"]
        for at in (number for number in range(count) if number != 4):
            assert {*found.early[at::count]} == {other.early[at]}

    def test_a_call_and_its_record_have_the_same_pattern(self, tmp_path: Path) -> None:
        """Whether a handler wants the record decides how far it gets, and must not decide what it is."""
        found = self.run(tmp_path, "xy", "y")
        assert found.early == found.recorded

    def test_a_record_of_another_process_has_the_same_pattern_unless_its_callers_told_it(self, tmp_path: Path) -> None:
        found = self.run(tmp_path, "xy")
        later = sampler(rates={"info": 1.0})
        same = []
        for (msg, args, path, line, function), known in zip(found.made, found.early, strict=True):
            verdict = later.site("app", 20, msg, args, path, line, function)
            assert verdict is not None
            same.append((verdict["weir.pattern.id"], verdict["log.record.template"]) == known)
        # Lines with several calls, the callers of a wrapper and calls within others are told by the stack only.
        assert same == [True] * 5 + [False] * 2 + [True, False, False, False, False, True] + [True] * 4

    def test_a_method_of_another_class_is_another_place(self, tmp_path: Path) -> None:
        one, other = self.run(tmp_path, "xy"), self.run(tmp_path, "xy", service="Other")
        assert other.early[0] not in one.early

    def test_ids_do_not_depend_on_the_folder_or_on_how_the_module_was_started(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        there = self.run(tmp_path / "elsewhere", "xy", module="shop.program")
        assert self.run(tmp_path, "xy").early == there.early

    def test_without_source_a_record_still_has_a_pattern(self, tmp_path: Path) -> None:
        log = Records(sampler(rates={"info": 1.0}))
        scope: dict[str, Any] = {"log": log, "adapter": log}
        exec(compile(PROGRAM, "/no/such/program.py", "exec"), scope)
        scope["Service"]().run("xy")
        assert log.early == log.recorded
        assert len({*log.early}) == len(self.TEMPLATES)

    def test_source_in_an_archive_is_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
            archive.writestr("archived_program.py", PROGRAM)
        monkeypatch.syspath_prepend(tmp_path / "app.zip")
        module = importlib.import_module("archived_program")
        log = Records(sampler(rates={"info": 1.0}))
        vars(module).update(log=log, adapter=log)
        module.Service().run("xy")
        assert tuple(template for _, template in log.early) == self.TEMPLATES
        assert log.early == log.recorded

    def test_source_that_has_changed_since_names_no_pattern(self, tmp_path: Path) -> None:
        """A deployment that replaces files below a running process must not mix up patterns."""
        path = tmp_path / "program.py"
        path.write_text(PROGRAM.replace("constant", "replaced").replace("f-string {x}", "string {x}, new"))
        log = Records(sampler(rates={"info": 1.0}))
        scope: dict[str, Any] = {"log": log, "adapter": log}
        exec(compile(PROGRAM, str(path), "exec"), scope)
        scope["Service"]().run("xy")
        assert [template for _, template in log.early[:3]] == ["constant", "with <*>", "f-string xy"]

    def test_a_name_that_is_sometimes_a_value_hides_nothing(self) -> None:
        """What is known of a name must not decide about what is not."""
        on = sampler(rates={"info": 1.0})
        found = []
        for value in ("known", "some other text", "known", "a third text", "known"):
            message = f"the value is {value}"
            if value != "known":
                (message,) = [value]
            verdict = log(on, message)
            assert verdict is not None
            found.append(verdict["log.record.template"])
        assert found == ["the value is <*>", "some other text", "the value is <*>", "a third text", "the value is <*>"]

    def test_a_translation_that_waits_is_a_format_string(self) -> None:
        class Lazy:
            def __str__(self) -> str:
                return "%d files in %s"

        on = sampler(rates={"info": 1.0})
        verdicts = [log(on, Lazy(), number, name) for number, name in ((1, "a"), (2, "home of ann"))]
        assert [v and v["log.record.template"] for v in verdicts] == ["<*> files in <*>"] * 2

    def test_many_callers_of_a_wrapper_are_bounded(self, tmp_path: Path) -> None:
        path = tmp_path / "many.py"
        calls = "".join(f'    wrapper(f"call {number} of {{x}}")\n' for number in range(MAX_STREAMS + 200))
        text = f"def wrapper(msg):\n    log.info(msg)\ndef run(x):\n{calls}"
        path.write_text(text)
        log = Records(sampler(rates={"info": 1.0}))
        scope: dict[str, Any] = {"log": log}
        exec(compile(text, str(path), "exec"), scope)
        scope["run"]("y")
        sites = [*log.on._calls.values(), *log.on._lines.values()]
        assert all(len(site.callers or ()) <= MAX_STREAMS for site in sites)


class TestBounds:
    def test_beyond_the_cap_patterns_share_one(self) -> None:
        on = sampler(max_patterns=100)
        ids = {v["weir.pattern.id"] for n in range(300) if (v := record(on, f"{'x' * n} %s", 1, line=n)) is not None}
        assert len(ids) == 101
        assert OVERFLOW.id in ids

    def test_patterns_that_fell_silent_make_room(self) -> None:
        clock = Clock()
        on = sampler(clock=clock, max_patterns=100)
        for number in range(100):
            record(on, f"{'x' * number} %s", 1, line=number)
        clock.advance(IDLE_S + 1)
        on.rollups()
        verdict = record(on, "something new %s", 1, line=5000)
        assert verdict is not None and verdict["weir.pattern.id"] != OVERFLOW.id

    def test_a_pattern_that_comes_back_has_its_old_id(self) -> None:
        clock = Clock()
        on = sampler(clock=clock)
        before = record(on, "hello %s", 1)
        clock.advance(IDLE_S + 1)
        on.rollups()
        after = record(on, "hello %s", 1)
        assert before is not None and after is not None
        assert before["weir.pattern.id"] == after["weir.pattern.id"]


class TestCounts:
    def test_rollups_count_since_the_last_one(self) -> None:
        clock = Clock(100.0)
        on = sampler(clock=clock, first=1, rates={"info": 0.0})
        for _ in range(3):
            clock.advance(5.0)
            log(on, "hello %s", 1)
        (first,) = on.rollups()
        assert (first.seen, first.kept, first.first, first.last) == (3, 1, 105.0, 115.0)
        assert on.rollups() == []
        clock.advance(1.0)
        log(on, "hello %s", 1)
        assert len(on.rollups()) == 1

    def test_each_severity_of_a_pattern_has_its_own_rollup(self) -> None:
        on = sampler()
        for level in (20, 40, 40):
            record(on, "hello %s", 1, level=level)
        assert {(r.severity, r.seen) for r in on.rollups()} == {("info", 1), ("error", 2)}

    def test_no_record_is_missed_by_many_threads(self) -> None:
        on = sampler(first=1)
        threads, each = 8, 4000
        switch = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        rolled: list[int] = []

        def work() -> None:
            for number in range(each):
                log(on, "hello %s", number)
                log(on, f"f {number}", level=10 * (1 + number % 3))

        try:
            running = [threading.Thread(target=work) for _ in range(threads)]
            for thread in running:
                thread.start()
            while any(thread.is_alive() for thread in running):
                rolled += [r.seen for r in on.rollups()]
            for thread in running:
                thread.join()
        finally:
            sys.setswitchinterval(switch)
        rolled += [r.seen for r in on.rollups()]
        assert sum(rolled) == sum(on.counts().values()) == threads * each * 2

    def test_a_forked_child_reports_only_its_own(self) -> None:
        on = sampler()
        for _ in range(7):
            record(on, "hello %s", 1)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            on.after_fork()
            for _ in range(5):
                record(on, "hello %s", 1)
            os.write(write, repr((sum(r.seen for r in on.rollups()), sum(on.counts().values()))).encode())
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 100) == b"(5, 5)"
        os.close(read)
        os.close(write)
        assert [r.seen for r in on.rollups()] == [7]

    def test_forked_siblings_do_not_keep_the_same_records(self) -> None:
        """With their parent's start, all would keep their only record, or none."""
        sums = []
        for seed in range(200):
            on = sampler(seed, first=1, rates={"info": 0.25})
            for _ in range(3):
                record(on, "hello %s", 1)
            total = 0.0
            for _ in range(40):
                on.after_fork()
                total += weight([record(on, "hello %s", 1)])
            sums.append(total)
        assert statistics.mean(sums) == pytest.approx(40, abs=4 * statistics.stdev(sums) / math.sqrt(200))
        assert statistics.stdev(sums) < 20


class SamplerModel(RuleBasedStateMachine):
    """Whatever happens in whatever order: roll-ups, counters and verdicts agree with a plain count."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock(0.0)
        self.on = sampler(clock=self.clock, first=2, max_patterns=100)
        self.seen: Counter[Severity] = Counter()
        self.kept: Counter[Severity] = Counter()
        self.rolled_seen: Counter[Severity] = Counter()
        self.rolled_kept: Counter[Severity] = Counter()

    @rule(
        name=st.integers(0, 150),
        severity=st.sampled_from(["debug", "info", "warn", "error"]),
        logger=st.sampled_from(["a", "b"]),
        times=st.integers(1, 30),
        how=st.sampled_from([record, log]),
    )
    def log_some(self, name: int, severity: Severity, logger: str, times: int, how: Callable[..., Verdict]) -> None:
        for number in range(times):
            verdict = how(self.on, f"{'x' * name} %s", number, level=LEVELS[severity], logger=logger)
            self.seen[severity] += 1
            self.kept[severity] += verdict is not None

    @rule(message=st.text(max_size=30))
    def log_text(self, message: str) -> None:
        self.seen["info"] += 1
        self.kept["info"] += self.on.text("api", 9, message) is not None

    @rule(seconds=st.sampled_from([0.1, 1.0, 61.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(
        rate=st.floats(0, 1),
        budget=st.sampled_from([None, 5.0]),
        chosen=st.sampled_from([(), (Rule("a", rate=0.1, logger="a"),)]),
    )
    def change_policy(self, rate: float, budget: float | None, chosen: tuple[Rule, ...]) -> None:
        self.on.apply(rules(first=2, rates={"info": rate}, budget_per_s=budget, rules=chosen))

    @rule()
    def roll_up(self) -> None:
        for found in self.on.rollups():
            self.rolled_seen[found.severity] += found.seen
            self.rolled_kept[found.severity] += found.kept

    @invariant()
    def counters_are_exact(self) -> None:
        counted = self.on.counts()
        for severity in SEVERITIES:
            keep, drop = counted.get((severity, "keep"), 0), counted.get((severity, "drop"), 0)
            assert (keep, keep + drop) == (self.kept[severity], self.seen[severity])

    def teardown(self) -> None:
        self.roll_up()
        assert self.rolled_seen == self.seen
        assert +self.rolled_kept == +self.kept


TestModel = SamplerModel.TestCase
