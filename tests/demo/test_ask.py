"""The assistant: its proof holds, and notices what it is there to notice."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from dataclasses import replace
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, Group

from otelweir.demo import ask as demo
from otelweir.demo import conversation
from otelweir.demo.ask import Answers, Told, ask, judge, missing, questions
from otelweir.demo.comparison import Received, Truth, compare
from otelweir.demo.launch import Interrupted, Service
from otelweir.demo.run import received
from otelweir.devserver import Record, Span, Store

SECRET = "sk-proj-0123456789abcdef0123456789abcdef"


def a_span(name: str, trace: str, children: list[Span] | None = None, **attributes: Any) -> Span:
    named = {key.replace("__", "."): value for key, value in attributes.items()}
    return Span(trace, name, "", name, "internal", 0, 10_000_000, "unset", "", "a", "a", named, [], children or [])


def a_call(trace: str, heard: int, said: int, cost: float, **more: Any) -> Span:
    return a_span(
        "chat gpt-4o-mini", trace, gen_ai__operation__name="chat", gen_ai__usage__input_tokens=heard,
        gen_ai__usage__output_tokens=said, weir__cost__amount=cost, **more,
    )  # fmt: skip


def a_root(trace: str, calls: list[Span], cost: float) -> Span:
    return a_span("answer", trace, calls, weir__trace__cost__amount=cost)


def a_record(severity: str, body: str, weight: float, reason: str, at: int) -> Record:
    return Record(at, at, severity, body, "", "a", "a", "t2", "s", "p", body, weight, reason, {})


TRACES = [
    [a_root("t1", [a_call("t1", 100, 10, 0.001), a_call("t1", 50, 5, 0.002)], 0.003)],
    [a_root("t2", [a_call("t2", 40, 4, 0.004)], 0.004)],
    [a_root("t3", [a_call("t3", 9, 1, 0.001, gen_ai__input__messages='[{"content":"my [redacted:key]"}]')], 0.001)],
]
RECORDS = [
    a_record("info", "a customer asks: my [redacted:key]", 1.0, "first", 1),
    a_record("debug", "looking up order 413", 0.0, "flight_recorder", 2),
    a_record("error", "order_status failed", 1.0, "error", 3),
]
TOLD = Told(4, 199, 20, f"my {SECRET}")
COMPARISON = compare(
    Truth(Counter(info=30, error=1), ["e1"]),
    Received({"info": 12, "error": 1}, {"info": 30, "error": 1}, {}, {"info": 30.0, "error": 1.0}, 2, ["e1"], 5.0),
)


def judged(**other: Any) -> Answers:
    given: dict[str, Any] = {
        "comparison": COMPARISON, "told": TOLD, "traces": TRACES, "records": RECORDS, "secret": SECRET,
        "logged": f'{{"message": "a customer asks: my {SECRET}"}}', "bodies": [b"my [redacted:key]", b"\x00"],
    }  # fmt: skip
    return judge(**(given | other))


class TestTheProof:
    def test_holds(self) -> None:
        answers = judged()
        assert (answers.ok, answers.differences) == (True, ())
        assert [record.body for record in answers.held] == ["looking up order 413"]
        assert answers.trace[0].trace_id == "t1", "the one with most to see"
        assert answers.failed[0].trace_id == "t2"
        assert dict(answers.instead)["chat, gen_ai.input.messages"] == "my [redacted:key]"

    @pytest.mark.parametrize(
        ("other", "told"),
        [
            ({"told": replace(TOLD, calls=5)}, "the provider counted 5 calls, the spans 4"),
            ({"told": replace(TOLD, input_tokens=200)}, "the provider counted 200 input tokens, the spans 199"),
            ({"told": replace(TOLD, output_tokens=21)}, "the provider counted 21 output tokens, the spans 20"),
            (
                {"traces": [[a_root("t1", [a_call("t1", 199, 20, 0.001)], 0.002)], *TRACES[2:]], "told": TOLD},
                "the roots say that the calls cost $0.003000, the calls $0.002000",
            ),
            ({"traces": [[a_root("t1", [a_call("t1", 1, 1, 0.0)], 0.0)]]}, "1 of the calls have no cost"),
            ({"records": RECORDS[:2]}, "no error with a trace arrived"),
            ({"records": RECORDS[2:]}, "the error came without the records before it"),
            (
                {"records": [replace(RECORDS[1], weight=1.0), RECORDS[2]]},
                "1 of the records that came with the error have a weight",
            ),
            ({"bodies": [f"my {SECRET}".encode()]}, "the secret is in 1 of the requests that left"),
            ({"bodies": [SECRET[20:].encode()]}, "the secret is in 1 of the requests that left"),
            ({"bodies": [SECRET[:20].encode()]}, "the secret is in 1 of the requests that left"),
            ({"logged": ""}, "the secret was not logged and asked, so there was nothing to hide"),
            ({"told": replace(TOLD, heard="")}, "the secret was not logged and asked, so there was nothing to hide"),
            ({"problems": ("the assistant did not end well",)}, "the assistant did not end well"),
        ],
    )
    def test_notices(self, other: dict[str, Any], told: str) -> None:
        answers = judged(**other)
        assert not answers.ok
        assert told in answers.differences

    def test_nothing_at_all_is_no_proof(self) -> None:
        nothing = compare(Truth(), Received({}, {}, {}, {}, 0, [], 0.0))
        answers = judged(comparison=nothing, told=Told(), traces=[], records=[], logged="", bodies=[])
        assert not answers.ok
        assert "the model was not asked" in answers.differences
        assert "nothing arrived in the place of the secret" in answers.differences

    def test_the_questions_differ_and_one_has_the_secret(self) -> None:
        asked = questions(SECRET)
        assert len(asked) == demo.QUESTIONS
        assert sum(SECRET in question for question in asked) == 1


class TestForReal:
    def test_a_secret_that_does_leave_is_noticed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Redaction turned off behind its back."""

        class Careless(Service):
            def __init__(self, folder: Path, endpoint: str, program: Any, variables: dict[str, str]) -> None:
                super().__init__(folder, endpoint, program, variables | {"WEIR_REDACT": "false"})

        monkeypatch.setattr(demo, "Service", Careless)
        with Store() as store:
            answers = ask(tmp_path / "assistant", threading.Event(), received, store)
            assert store.totals().spans > 0, "what arrives is kept besides"
        assert answers.hidden[0].startswith("the secret is in ")
        assert (answers.calls, answers.flight, answers.problems) == ((), (), ())
        assert answers.comparison.ok

    def test_can_be_interrupted(self, tmp_path: Path) -> None:
        told = threading.Event()
        told.set()
        with Store() as store, pytest.raises(Interrupted):
            ask(tmp_path / "assistant", told, received, store)


class TestWhatIsMissing:
    @pytest.mark.parametrize("module", demo.NEEDS)
    def test_is_named(self, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert missing() == ""
        monkeypatch.setitem(sys.modules, module, None)
        assert missing() == module

    def test_is_one_line_with_its_remedy(self) -> None:
        text = shown(None, "openai", 120)
        assert text.split("\n")[0].strip() == (
            "Language models are left out: openai is not installed, pip install 'otelweir[demo]'"
        )


def shown(answers: Answers | None, needs: str, width: int) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(Group(*conversation.parts(answers, needs, width, "utf-8")))
    return console.export_text()


class TestShown:
    def test_to_a_person(self) -> None:
        text = shown(judged(), "", 100)
        assert "✓ tokens  4 calls, 199 in, 20 out, as the provider counted: $0.008000" in text
        assert "✓ secret" in text
        assert "└─ chat gpt-4o-mini" in text
        assert "weight 0  DEBUG  looking up order 413" in text
        assert "weight 1  ERROR  order_status failed" in text
        assert "sk-proj-0123…" in text
        assert SECRET not in text
        assert "✗" not in text

    def test_what_is_wrong_stands_out(self) -> None:
        text = shown(judged(bodies=[SECRET.encode()]), "", 100)
        assert "✗ secret  the secret is in 1 of the requests that left" in text
        assert "✓ tokens" in text

    @pytest.mark.parametrize("width", [40, 60, 80, 120])
    def test_fits_and_no_number_is_cut(self, width: int) -> None:
        text = shown(judged(), "", width)
        assert max(map(len, text.splitlines())) <= width
        assert "$0.003000" in text

    def test_an_output_without_signs_gets_words(self) -> None:
        file = TextIOWrapper(BytesIO(), "ascii", errors="replace")
        Console(width=80, file=file).print(Group(*conversation.parts(judged(), "", 80, "ascii")))
        file.seek(0)
        assert "ok secret" in file.read()

    def test_to_a_machine(self) -> None:
        found = json.loads(json.dumps(conversation.as_json(judged())))
        assert found["ok"] is True
        assert found["told"] == {"calls": 4, "input_tokens": 199, "output_tokens": 20}
        assert found["held"] == [{"severity": "debug", "body": "looking up order 413", "weight": 0.0}]
        assert SECRET not in json.dumps(found)
