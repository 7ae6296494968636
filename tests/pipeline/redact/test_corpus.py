"""How much of a labelled corpus is found, and how much else."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from otelweir.pipeline.redact import Plan, Redactor

RECALL = 0.98
PRECISION = 0.97


def corpus(name: str) -> ModuleType:
    """A file beside this one; test folders are no packages."""
    spec = importlib.util.spec_from_file_location(f"redaction_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CORPORA = [corpus("corpus"), corpus("corpus_services")]
SECRETS: list[str] = [line for one in CORPORA for line in one.secrets()]
LOOK_ALIKES: list[str] = [line for one in CORPORA for line in one.look_alikes()]
SCRUBBER = Redactor().of("logs")


def labelled(line: str) -> tuple[str, list[tuple[int, int]]]:
    """A line without its labels, and where they were."""
    text, spans = "", []
    for place, part in enumerate(re.split("[«»]", line)):
        if place % 2:
            spans.append((len(text), len(text) + len(part)))
        text += part
    return text, spans


def judged() -> Iterator[tuple[str, int, int, int, int]]:
    """Of each line: secrets, those hidden to the last character, findings, those that touch a secret."""
    for line in (*SECRETS, *LOOK_ALIKES):
        text, wanted = labelled(line)
        found = SCRUBBER.findings(text)
        hidden = {place for begin, end, _ in found for place in range(begin, end)}
        whole = sum(hidden.issuperset(range(begin, end)) for begin, end in wanted)
        right = sum(any(begin < other and one < end for one, other in wanted) for begin, end, _ in found)
        yield line, len(wanted), whole, len(found), right


def blind() -> list[dict[str, Any]]:
    """Cases of people who had not seen the rules: a text or attributes, and what must not be left of it.

    A `¦` within a key keeps it from looking like one to who searches repositories for keys.
    """
    lines = Path(__file__).with_name("corpus_blind.jsonl").read_text(encoding="utf-8").replace("¦", "").splitlines()
    return [json.loads(line) for line in lines]


def test_what_others_expect() -> None:
    missed, wrong, hidden = [], [], 0
    for case in blind():
        given: str | dict[str, Any] = case["attributes"] if "attributes" in case else case["text"]
        now = SCRUBBER.text(given) if isinstance(given, str) else SCRUBBER.attributes(given) or given
        left = now if isinstance(now, str) else f"{now} {json.dumps(now, ensure_ascii=False)}"
        for secret in case["secrets"]:
            if secret in left:
                missed.append((secret, given))
            else:
                hidden += 1
        if not case["secrets"] and now != given:
            wrong.append((given, now))
    assert hidden >= 800
    assert hidden / (hidden + len(missed)) >= RECALL, missed
    assert hidden / (hidden + len(wrong)) >= PRECISION, wrong


def test_the_corpus_is_large_enough_to_tell() -> None:
    assert len(SECRETS) >= 700
    assert len(LOOK_ALIKES) >= 900


def test_recall() -> None:
    rows = list(judged())
    missed = [line for line, wanted, whole, _, _ in rows if whole < wanted]
    recall = sum(row[2] for row in rows) / sum(row[1] for row in rows)
    assert recall >= RECALL, missed


def test_precision() -> None:
    rows = list(judged())
    wrong = [line for line, _, _, found, right in rows if right < found]
    precision = sum(row[4] for row in rows) / sum(row[3] for row in rows)
    assert precision >= PRECISION, wrong


@pytest.mark.parametrize("action", ["mask", "hash", "partial"])
def test_what_was_hidden_stays_as_it_is(action: str) -> None:
    """A record may pass twice: marks are no secrets."""
    scrubber = Redactor(Plan(action=action, key="k")).of("logs")  # type: ignore[arg-type]
    once = [scrubber.text(labelled(line)[0]) for line in SECRETS]
    kept = {line for line in once if scrubber.text(line) != line}
    # What is left of an address or a number may look like one.
    assert not kept if action != "partial" else len(kept) < len(once) / 2
