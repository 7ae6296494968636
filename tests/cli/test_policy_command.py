"""`weir policy`: what it prints, and with which exit code."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import example, given
from hypothesis import strategies as st

from otelweir.cli.loglines import LogRecord, record_of, records
from otelweir.cli.policy import command

EXAMPLE = Path(__file__).parents[2] / "examples" / "policy.yaml"


def weir(*args: object, given: str | bytes | None = None) -> Result:
    return CliRunner().invoke(command, [str(arg) for arg in args], input=given, prog_name="weir policy")


def weir_json(*args: object, given: str | None = None) -> Any:
    result = weir(*args, "--json", given=given)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(
        "rates: {debug: 0, info: 0.1}\nfirst: 2\nwindow: 10s\nrules:\n"
        "  - {name: checks, template: 'health check*', rate: 0}\n"
        "  - {logger: db, rate: 0.5, first: 1}\n"
    )
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.yaml"
    path.write_text("first: 0\nrates: {inof: 1}\n")
    return path


class TestCheck:
    def test_the_example_is_valid_and_summed_up(self) -> None:
        result = weir("check", EXAMPLE)
        assert result.exit_code == 0
        assert f"{EXAMPLE} is valid." in result.stdout
        for part in ("health checks", "template health check*", "0.01", "budget", "100 records per second"):
            assert part in result.stdout

    def test_what_it_says_about_traces_is_told_too(self) -> None:
        told = weir("check", EXAMPLE).stdout
        for part in ("rate 0.2, at most 50 a second and process", "span GET /health*, kind server", "user.plan beta*"):
            assert part in told
        assert weir_json("check", EXAMPLE)["sets"]["traces"]["rules"][1]["per_second"] == 10

    def test_every_problem_is_told_with_its_line(self, bad: Path) -> None:
        result = weir("check", bad)
        assert result.exit_code == 1
        assert result.stderr.splitlines() == [
            f"{bad}:1: first: 0 is not a whole number from 1 to 1000000",
            f"{bad}:2: rates.inof: unknown key; did you mean info?",
            f"Error: {bad} is not valid: 2 problems (WEIR-POLICY-002). Correct the above and try again.",
        ]

    @pytest.mark.parametrize("arguments", [("check",), ("explain", "a message"), ("replay", "-")])
    def test_problems_as_json(self, bad: Path, arguments: tuple[str, ...]) -> None:
        result = weir(arguments[0], bad, *arguments[1:], "--json", given="")
        assert (result.exit_code, result.stderr) == (1, "")
        assert json.loads(result.stdout) == {
            "file": str(bad),
            "valid": False,
            "code": "WEIR-POLICY-002",
            "problems": [
                {"line": 1, "problem": "first: 0 is not a whole number from 1 to 1000000"},
                {"line": 2, "problem": "rates.inof: unknown key; did you mean info?"},
            ],
        }

    def test_a_problem_of_the_whole_file_has_no_line(self, tmp_path: Path) -> None:
        (tmp_path / "empty.yaml").write_text("")
        result = weir("check", tmp_path / "empty.yaml", "--json")
        assert json.loads(result.stdout)["problems"] == [
            {"line": None, "problem": "is empty; a policy that sets nothing is {}"}
        ]

    @pytest.mark.parametrize("arguments", [("check",), ("explain", "a message"), ("replay", "-")])
    def test_yaml_that_cannot_be_read_here_is_not_called_invalid(
        self, policy: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "yaml", None)
        result = weir(arguments[0], policy, *arguments[1:], given="")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == (
            f"Error: {policy} is YAML and pyyaml is not installed: pip install 'otelweir[yaml]', or write JSON "
            "(WEIR-CONFIG-006).\n"
        )
        told = json.loads(weir(arguments[0], policy, *arguments[1:], "--json", given="").stdout)
        assert (told["valid"], told["code"]) == (None, "WEIR-CONFIG-006")

    def test_a_policy_as_json(self, policy: Path) -> None:
        found = weir_json("check", policy)
        assert found["valid"]
        assert found["sets"]["rules"][1] == {"logger": "db", "rate": 0.5, "first": 1}

    def test_no_budget_as_json(self, policy: Path) -> None:
        policy.write_text("budget: none")
        assert weir_json("check", policy)["sets"] == {"budget": "none"}

    def test_a_rule_that_never_decides_is_noted(self, policy: Path) -> None:
        policy.write_text("rules:\n  - {name: one, logger: a, rate: 0.1}\n  - {name: two, logger: a, rate: 0.2}\n")
        notes = weir_json("check", policy)["notes"]
        assert notes == ["one never decides: two has the same conditions and comes later"]

    @pytest.mark.parametrize("file", ["-", "missing.yaml", "."])
    def test_what_is_no_file_is_wrong_usage(self, file: str) -> None:
        result = weir("check", file)
        assert result.exit_code == 2
        assert "Invalid value for 'FILE'" in result.stderr

    def test_every_command_has_examples(self) -> None:
        for name in ("check", "explain", "replay"):
            result = weir(name, "--help")
            assert result.exit_code == 0
            assert f"weir policy {name} policy.yaml" in result.stdout


class TestExplain:
    def test_the_deciding_rule_and_why_others_lose(self, policy: Path) -> None:
        found = weir_json("explain", policy, "health check of node 5", "--logger", "db.pool")
        assert found["template"] == "health check of node <*>"
        assert (found["rate"], found["first"], found["rule"]) == (0, 1, "checks")
        says = {reason["what"]: reason["says"] for reason in found["reasons"]}
        assert says["checks"] == "decides the rate: it is for template health check*"
        assert says["rules[1] of policy.yaml"] == "decides the first records: it is for logger db"
        assert says["rates"] == "the rate of info, 0.1, gives way to a rule"

    def test_without_a_rule_the_severity_decides(self, policy: Path) -> None:
        found = weir_json("explain", policy, "something else", "--severity", "WARNING")
        assert (found["severity"], found["rate"], found["rule"]) == ("warn", 0.5, None)

    def test_what_happens_to_the_1st_11th_and_1000th_record(self, policy: Path) -> None:
        found = weir_json("explain", policy, "something else")
        assert [(fate["record"], fate["kept"], fate["weight"]) for fate in found["records"]] == [
            (1, 1.0, 1.0),
            (11, 0.1, 10.0),
            (1000, 0.1, 10.0),
        ]

    @pytest.mark.parametrize("severity", ["ERROR", "critical", "FATAL"])
    def test_errors_are_kept(self, policy: Path, severity: str) -> None:
        found = weir_json("explain", policy, "health check of node 5", "--severity", severity)
        assert found["rate"] == 1
        assert found["reasons"][0]["says"] == "decides the rate: error and fatal are always kept"
        assert [fate["kept"] for fate in found["records"]] == [1, 1, 1]

    def test_events_are_kept_unless_named(self) -> None:
        assert weir_json("explain", EXAMPLE, "", "--event", "feature_flag.evaluation")["rate"] == 1
        named = weir_json("explain", EXAMPLE, "", "--event", "gen_ai.evaluation.result")
        assert (named["rate"], named["rule"]) == (0.5, "half of the evaluations")

    def test_a_rule_that_matches_the_message_but_not_the_template_says_so(self, policy: Path) -> None:
        """The commonest mistake in writing a rule."""
        policy.write_text("rules: [{name: r, template: 'took 5*', rate: 0}]")
        (reason,) = [r for r in weir_json("explain", policy, "took 5 ms")["reasons"] if r["what"] == "r"]
        assert "though it does match the message" in reason["says"]

    def test_the_variables_lie_below_the_policy(self, policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WEIR_LOG_RATES", "info=0.7,warn=0.7")
        assert weir_json("explain", policy, "x", "--severity", "info")["rate"] == 0.1
        assert weir_json("explain", policy, "x", "--severity", "warn")["rate"] == 0.7

    def test_for_humans(self, policy: Path) -> None:
        result = weir("explain", policy, "something\telse [bold]5[/bold]")
        assert result.exit_code == 0
        for part in ("pattern", "template", "something", "Why:", "record    1: kept", "record 1000"):
            assert part in result.stdout

    @pytest.mark.parametrize("mode", ["off", "dry-run"])
    def test_where_all_is_kept_nothing_says_otherwise(self, policy: Path, mode: str) -> None:
        policy.write_text(policy.read_text() + f"sampling: {mode}\n")
        found = weir_json("explain", policy, "health check of node 5")
        assert (found["sampling"], found["rate"]) == (mode, 0)
        assert [(fate["kept"], fate["weight"]) for fate in found["records"]] == [(1, 1)] * 3
        assert found["reasons"][0]["what"] == "sampling"
        last = found["records"][-1]["words"]
        dry = "kept, weight 1 (dry-run; if on: not kept, only counted)"
        assert last == ("kept, weight 1 (sampling is off)" if mode == "off" else dry)
        assert "rate if on" in weir("explain", policy, "health check of node 5").stdout

    @pytest.mark.parametrize("arguments", [("explain", "x"), ("replay", "-")])
    def test_a_bad_policy_is_told(self, bad: Path, arguments: tuple[str, ...]) -> None:
        """Without the words for a service: here is no last good policy."""
        result = weir(arguments[0], bad, *arguments[1:], given="")
        assert result.exit_code == 1
        assert result.stderr.startswith(f"{bad}:1: first: 0 is not")
        assert result.stderr.endswith("2 problems (WEIR-POLICY-002). Correct the above and try again.\n")
        assert "last good policy" not in result.stderr

    def test_a_severity_that_is_none_is_wrong_usage(self, policy: Path) -> None:
        assert weir("explain", policy, "x", "--severity", "loud").exit_code == 2


def flood() -> str:
    lines = []
    for number in range(600):
        stamp = f"2024-05-01 12:{number // 60:02}:{number % 60:02},000"
        lines.append(f"{stamp} INFO app.http: served request {number}")
        lines.append(f"{stamp} DEBUG app.cache: cache miss for key {number}")
        lines.append(f"{stamp} INFO app: health check of node {number}")
        if number % 100 == 0:
            lines += [f"{stamp} ERROR app: failed {number}", "Traceback (most recent call last):", "  x", "KeyError: 1"]
    lines.append("an odd line")
    return "\n".join(lines) + "\n"


class TestReplay:
    def test_what_would_be_kept_per_pattern(self, policy: Path, tmp_path: Path) -> None:
        (tmp_path / "app.log").write_text(flood())
        found = weir_json("replay", policy, tmp_path / "app.log")
        assert (found["records"], found["lines"]) == (1807, 1825)
        assert found["errors"] == {"logged": 6, "kept": 6}
        assert (found["not_understood"], found["with_time"], found["seconds"]) == (1, 1806, 599.0)
        rows = {row["template"]: row for row in found["patterns"]}
        # 2 first records in each of 60 windows of 10 s, and of the other 8 one in ten.
        served = rows["served request <*>"]
        assert (served["logged"], served["severity"]) == (600, "info")
        assert served["kept"] in range(120 + 47, 120 + 50)
        assert rows["cache miss for key <*>"]["kept"] == rows["health check of node <*>"]["kept"] == 120
        assert found["kept"] == sum(row["kept"] for row in rows.values())
        assert [row["logged"] for row in found["patterns"]] == sorted(
            (r["logged"] for r in rows.values()), reverse=True
        )

    def test_the_same_file_gives_the_same_answer(self, policy: Path) -> None:
        assert weir_json("replay", policy, "-", given=flood()) == weir_json("replay", policy, "-", given=flood())

    def test_for_humans(self, policy: Path) -> None:
        result = weir("replay", policy, "-", "--top", 2, given=flood())
        assert result.exit_code == 0
        assert "served request <*>" in result.stdout
        assert "and 3 more; --top shows them" in result.stdout
        assert "6 errors, 6 kept; 5 patterns." in result.stdout
        assert "Severity not understood: 1; counted as info." in result.stdout

    def test_packed_files_are_read(self, policy: Path, tmp_path: Path) -> None:
        (tmp_path / "app.log.gz").write_bytes(gzip.compress(flood().encode()))
        assert weir_json("replay", policy, tmp_path / "app.log.gz")["records"] == 1807
        (tmp_path / "bad.gz").write_bytes(b"no gzip")
        assert weir("replay", policy, tmp_path / "bad.gz").exit_code == 1

    def test_without_times_it_says_so(self, policy: Path) -> None:
        result = weir("replay", policy, "-", given="INFO:app:hello 1\n" * 100)
        assert "No line has a time that was understood" in result.stdout
        assert weir_json("replay", policy, "-", given="INFO:app:hello 1\n" * 100)["seconds"] is None

    def test_an_empty_log_is_fine(self, policy: Path) -> None:
        assert weir_json("replay", policy, "-", given="")["saved_share"] == 0
        assert weir("replay", policy, "-", given="").exit_code == 0

    @pytest.mark.parametrize(
        ("mode", "says"),
        [("dry-run", "1,807 records; dry-run: all"), ("off", "1,807 records; sampling is off: all")],
    )
    def test_where_all_is_kept_it_says_so_and_what_on_would_keep(self, policy: Path, mode: str, says: str) -> None:
        on = weir_json("replay", policy, "-", given=flood())
        assert (on["sampling"], on["kept"]) == ("on", on["kept_if_on"])
        policy.write_text(policy.read_text() + f"sampling: {mode}\n")
        found = weir_json("replay", policy, "-", given=flood())
        assert (found["sampling"], found["kept"], found["saved_share"]) == (mode, 1807, 0)
        assert (found["kept_if_on"], found["saved_share_if_on"]) == (on["kept"], on["saved_share"])
        assert all(row["kept"] == row["logged"] >= row["kept_if_on"] for row in found["patterns"])
        told = weir("replay", policy, "-", given=flood()).stdout
        assert f"{says} are kept; on would keep {on['kept']} ({on['saved_share']:.1%} saved); 6 errors" in told
        assert "kept if on" in told

    def test_the_variable_says_whether_all_is_kept(self, policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WEIR_LOG_SAMPLING", "off")
        found = weir_json("replay", policy, "-", given=flood())
        assert (found["sampling"], found["saved_share"]) == ("off", 0)

    def test_one_of_a_kind_is_not_many(self, policy: Path) -> None:
        told = weir("replay", policy, "-", given="ERROR:app:hello\n").stdout
        assert "1 record, 1 kept, 0.0% saved; 1 error, 1 kept; 1 pattern." in told

    def test_json_lines_without_a_message_are_told(self, policy: Path) -> None:
        lines = '{"level":"info","what":"a"}\n{"level":"info","msg":"b"}\n'
        assert weir_json("replay", policy, "-", given=lines)["no_message"] == 1
        told = weir("replay", policy, "-", given=lines).stdout
        assert "No message key found in 1 JSON line (looked for message, msg, " in told

    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
    def test_utf_16_is_told_not_misread(self, policy: Path, tmp_path: Path, encoding: str) -> None:
        (tmp_path / "app.log").write_bytes(("\ufeff" + flood()).encode(encoding))
        result = weir("replay", policy, tmp_path / "app.log")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"Error: {tmp_path / 'app.log'} is UTF-16; save it as UTF-8\n"

    def test_a_byte_order_mark_does_not_hide_the_first_line(self, policy: Path) -> None:
        told = weir_json("replay", policy, "-", given="\ufeffERROR:app:hello\n")
        assert (told["errors"]["logged"], told["patterns"][0]["template"]) == (1, "hello")

    def test_times_that_begin_anew_go_on(self, policy: Path) -> None:
        """Two files in a row, or syslog over the turn of the year."""
        both = weir_json("replay", policy, "-", given=flood() + flood())
        served = next(row for row in both["patterns"] if row["template"] == "served request <*>")
        assert served["kept"] >= 2 * 118

    def test_bytes_that_are_no_text_and_endless_lines_pass(self, policy: Path) -> None:
        result = weir("replay", policy, "-", "--json", given=b"INFO \xff\xfe\x00\n" + b"x" * 500_000 + b"\nINFO y\n")
        assert json.loads(result.stdout)["records"] == 3

    def test_a_missing_log_is_wrong_usage(self, policy: Path) -> None:
        assert weir("replay", policy, "missing.log").exit_code == 2


MAY_DAY = 1714564800.0


class TestLines:
    @pytest.mark.parametrize(
        ("line", "severity", "logger", "message", "time"),
        [
            ("2024-05-01 12:00:00,500 INFO app.http: GET /", 9, "app.http", "GET /", MAY_DAY + 0.5),
            ("2024-05-01 12:00:00 - app.http - WARNING - slow 12", 13, "app.http", "slow 12", MAY_DAY),
            ("2024-05-01T14:00:00+02:00 [ERROR] boom", 17, "", "boom", MAY_DAY),
            ("[2024-05-01 12:00:00 +0000] [123] [INFO] Booting worker", 9, "", "Booting worker", MAY_DAY),
            ("2024-05-01 12:00:00.000 | INFO     | app.main:run:12 - done: 5", 9, "app.main", "done: 5", MAY_DAY),
            ("[2024-05-01 12:00:00,000: INFO/MainProcess] Task x received", 9, "", "Task x received", MAY_DAY),
            ("2024-05-01 12:00:00 [warning  ] user in   k=v", 13, "", "user in   k=v", MAY_DAY),
            ("2024-05-01T12:00:00Z DEBUG hello", 5, "", "hello", MAY_DAY),
            ("2024-05-01 12:00:00 INFO Retrying: attempt 3", 9, "", "Retrying: attempt 3", MAY_DAY),
            ("2024/05/01 12:00:00 CRITICAL x", 21, "", "x", MAY_DAY),
            ("INFO:app.http:hello: world", 9, "app.http", "hello: world", None),
            ("INFO:     127.0.0.1:80 - \"GET /\" 200", 9, "", "127.0.0.1:80 - \"GET /\" 200", None),
            ("[ERROR] boom", 17, "", "boom", None),
            ("\x1b[31mERROR\x1b[0m: boom", 17, "", "boom", None),
            ("<11>May  1 12:00:00 host app[123]: message", 17, "app", "message", 957182400.0),
            ("May  1 12:00:00 host app[123]: ERROR message", 17, "app", "message", 957182400.0),
            ("level=warn ts=2024-05-01T12:00:00Z msg=\"slow\"", 13, "", "slow", MAY_DAY),
            ('{"level":"info","event":"in","timestamp":"2024-05-01T12:00:00Z","logger":"a"}', 9, "a", "in", MAY_DAY),
            ('{"level":50,"time":1714564800000,"msg":"m","pid":1,"hostname":"h"}', 17, "", "m", MAY_DAY),
            ('{"levelname":"ERROR","message":"m","name":"a"}', 17, "a", "m", None),
            ('{"levelno":40,"message":"m"}', 17, "", "m", None),
            ('{"severity_number":13,"body":"m"}', 13, "", "m", None),
            ('{"severity":"WARNING","textPayload":"m","timestamp":"2024-05-01T12:00:00Z"}', 13, "", "m", MAY_DAY),
            ('{"severity":"ERROR","jsonPayload":{"message":"m","x":1}}', 17, "", "m", None),
            (r'{"log":"ERROR:app:m\n","stream":"stderr","time":"2024-05-01T12:00:00Z"}', 17, "app", "m", MAY_DAY),
            (r'{"log":"{\"level\":\"warn\",\"msg\":\"m\"}\n","stream":"stdout"}', 13, "", "m", None),
            ("I0501 12:00:00.500       1 file.go:42] m: 1", 9, "file.go", "m: 1", 957182400.5),
            ("E0501 12:00:00.000000 1234 dir/file.py:42] m", 17, "dir/file.py", "m", 957182400.0),
        ],
    )  # fmt: skip
    def test_common_forms_are_understood(
        self, line: str, severity: int, logger: str, message: str, time: float | None
    ) -> None:
        (found,) = records([line + "\n"])
        assert found == LogRecord(message, severity, True, logger, None, time)

    @pytest.mark.parametrize(
        "line", ["hello world", "Failed with ERROR code 5", "2024-05-01 12:00:00 Failed with ERROR code 5", "{}x", "{"]
    )
    def test_a_word_within_a_sentence_is_no_severity(self, line: str) -> None:
        assert not record_of(line).understood

    def test_a_traceback_in_docker_lines_belongs_to_the_record_before(self) -> None:
        lines = ["ERROR:a:one", "Traceback (most recent call last):", '  File "x", line 1', "KeyError: 1", "INFO:a:two"]
        written = [json.dumps({"log": f"{line}\n", "stream": "stderr"}) for line in lines]
        assert [(record.message, record.lines) for record in records(written)] == [("one", 4), ("two", 1)]

    @pytest.mark.parametrize(
        "line", ['{"level":"info","data":1}', '{"msg":{"a":1}}', '{"jsonPayload":{"x":1}}', '{"jsonPayload":"m"}x']
    )
    def test_a_json_line_without_a_message_says_so(self, line: str) -> None:
        assert record_of(line).no_message == line.endswith("}")
        assert record_of(line).message == line

    def test_access_logs_are_info(self) -> None:
        found = record_of('127.0.0.1 - - [01/May/2024:12:00:00 +0000] "GET / HTTP/1.1" 200 2')
        assert found == LogRecord('"GET / HTTP/1.1" 200 2', 9, True, "", None, MAY_DAY)

    def test_events_are_recognized(self) -> None:
        assert record_of('{"event_name": "gen_ai.evaluation.result", "body": "x"}').event == "gen_ai.evaluation.result"

    def test_a_traceback_belongs_to_the_record_before(self) -> None:
        lines = [
            "INFO:a:one", "ERROR:a:two", "Traceback (most recent call last):", '  File "x", line 1', "KeyError: 1", "",
            "During handling of the above exception, another exception occurred:", "",
            "Traceback (most recent call last):", '  File "x", line 1', "ValueError: 1", "INFO:a:three", "  more",
        ]  # fmt: skip
        assert [(record.message, record.lines) for record in records(lines)] == [("one", 1), ("two", 10), ("three", 2)]

    def test_a_traceback_makes_a_line_of_unknown_severity_an_error(self) -> None:
        (found,) = records(["odd", "Traceback (most recent call last):", "  x", "KeyError"])
        assert (found.severity, found.lines) == (17, 4)

    @given(st.lists(st.text(max_size=80), max_size=5))
    @example(['{"level": true, "time": [], "message": {}}'])
    @example(['{"time": 1e400, "level": 1e9}'])
    @example(["9999-99-99 99:99:99 INFO x", "Feb 31 12:00:00 h a: x"])
    def test_no_line_is_too_strange(self, lines: list[str]) -> None:
        found = list(records(lines))
        assert sum(record.lines for record in found) <= len(lines)

    @pytest.mark.parametrize("part", ["[a] ", "a ", "a - ", "[", "(a", "a:", " ", "level=info ", 'msg="', "1 "])
    def test_a_long_line_takes_no_exponential_time(self, part: str) -> None:
        for start in ("", "2024-05-01 12:00:00 "):
            record_of(start + part * 20_000)
