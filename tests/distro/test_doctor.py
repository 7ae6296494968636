"""What the doctor finds, with an environment, packages and a network made up for it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from otelweir import errors
from otelweir.distro import doctor, endpoint
from otelweir.distro.defaults import OTEL_DEFAULTS
from otelweir.distro.doctor import Finding, Report, examine
from otelweir.distro.installed import Entry, Installed
from otelweir.pipeline.sample.logs import policy_fetch
from otelweir.pipeline.sample.logs.policy_cache import PolicyCache
from otelweir.testing import Backend

NAMED = {"OTEL_SERVICE_NAME": "cart"}
GROUPS = {
    "opentelemetry_distro": [Entry("weir", "otelweir")],
    "opentelemetry_configurator": [Entry("weir", "otelweir")],
    **{
        f"opentelemetry_{signal}_exporter": [Entry("otlp", "opentelemetry-exporter-otlp")]
        for signal in ("traces", "metrics", "logs")
    },
}
PLAIN = Installed({"otelweir": "1", "opentelemetry-sdk": "1.45.1"}, GROUPS)


def seen(
    environ: Mapping[str, str] | None = None, installed: Installed = PLAIN, answer: endpoint.Answer | None = None
) -> Report:
    def ask(targets: Sequence[endpoint.Target]) -> list[endpoint.Answer]:
        return [answer or endpoint.Answer(200, latency_s=0.002)] * len(targets)

    # Not the spools of whoever runs the tests.
    named = {**NAMED, "XDG_STATE_HOME": os.environ["XDG_STATE_HOME"]}
    return examine({**named, **(environ or {})}, installed, ask=ask, fetch=None)


def with_packages(**versions: str) -> Installed:
    more = {name.replace("_", "-"): version for name, version in versions.items()}
    return Installed({**PLAIN.versions, **more}, GROUPS)


def findings(report: Report) -> list[tuple[str, str | None]]:
    return [(finding.level, finding.code) for finding in report.findings]


def test_a_sound_environment_needs_nothing() -> None:
    report = seen()
    assert report.ok
    assert report.findings == []
    assert [(e.signal, e.state, e.status, e.latency_ms) for e in report.endpoints] == [
        (signal, "answers", 200, 2.0) for signal in ("traces", "metrics", "logs")
    ]


class TestConfiguration:
    def test_every_setting_has_its_origin(self) -> None:
        rows = {row.name: (row.value, row.origin) for row in seen({"WEIR_LOG_FIRST": "3"}).settings}
        assert rows["WEIR_LOG_FIRST"] == ("3", "variable")
        assert rows["WEIR_LOG_SAMPLING"] == ("on", "default")

    def test_opentelemetrys_variables_come_with_the_distributions_defaults(self) -> None:
        rows = {row.name: (row.value, row.origin) for row in seen({"OTEL_TRACES_EXPORTER": "none"}).opentelemetry}
        assert rows["OTEL_TRACES_EXPORTER"] == ("none", "variable")
        assert rows["OTEL_LOGS_EXPORTER"] == ("otlp", "default")
        assert set(OTEL_DEFAULTS) <= set(rows)

    def test_what_is_wrong_with_settings_is_a_problem_each(self, capfd: pytest.CaptureFixture[str]) -> None:
        report = seen({"WEIR_LOG_FIRST": "none", "WEIR_LOG_RATE": "1", "OTEL_EXPORTER_OTLP_PROTOCOL": "http"})
        assert sorted(findings(report)) == [
            ("problem", "WEIR-CONFIG-001"),
            ("problem", "WEIR-CONFIG-001"),
            ("problem", "WEIR-CONFIG-002"),
        ]
        assert any("WEIR_LOG_FIRST='none' is not a whole number" in finding.what for finding in report.findings)
        assert capfd.readouterr().err == ""

    def test_looking_leaves_the_logger_as_it_was(self) -> None:
        before = (errors.logger.handlers[:], errors.logger.propagate, errors.logger.level)
        seen({"WEIR_LOG_FIRST": "none"})
        assert (errors.logger.handlers, errors.logger.propagate, errors.logger.level) == before
        assert logging.getLogger("otelweir") is errors.logger

    def test_no_secret_gets_into_the_report(self) -> None:
        report = seen(
            {
                "OTEL_EXPORTER_OTLP_HEADERS": "authorization=hush",
                "OTEL_EXPORTER_OTLP_ENDPOINT": "https://me:hush@example.com?k=hush",
                "WEIR_POLICY_KEY": "hush",
                "WEIR_POLICY_URL": "ftp://me:hush@example.com",
                "WEIR_LOG_RATES": "https://me:hush@example.com",
            },
            answer=endpoint.Answer(failure="other", detail="no route to https://me:hush@example.com"),
        )
        assert not report.ok
        assert "hush" not in json.dumps(asdict(report))

    @pytest.mark.parametrize("variable", ["WEIR_POLICY_FILE", "WEIR_POLICY_URL"])
    @pytest.mark.parametrize("value", ["https://u:hush@h/p", "http:/u:hush@h", "bob:hush@h", "https://u:a hush@h"])
    def test_no_credentials_of_a_policy_get_into_the_report(self, variable: str, value: str) -> None:
        assert "hush" not in json.dumps(asdict(seen({variable: value})))

    def test_a_url_as_policy_file_is_told_its_variable(self) -> None:
        (finding,) = seen({"WEIR_POLICY_FILE": "https://h/p"}).findings
        assert "set WEIR_POLICY_URL for a URL" in finding.what

    def test_a_finding_has_its_remedy_once(self, tmp_path: Path) -> None:
        (tmp_path / "policy.json").write_text('{"firstt": 1, "budgett": 7, "modee": "on"}')
        report = seen({"WEIR_LOG_FRST": "1", "WEIR_POLICY_FILE": str(tmp_path / "policy.json")})
        assert sorted(findings(report)) == [("problem", "WEIR-CONFIG-002"), ("problem", "WEIR-POLICY-002")]
        for finding in report.findings:
            assert finding.remedy not in finding.what
            assert "troubleshooting" not in finding.what

    def test_what_is_unset_has_no_value(self) -> None:
        rows = {row.name: row.value for row in seen().settings}
        assert (rows["WEIR_LOG_BUDGET"], rows["WEIR_LOG_FIRST"]) == (None, "10")

    def test_a_path_in_the_base_endpoint_is_a_problem(self) -> None:
        report = seen({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318/v1/traces/"})
        assert [finding.remedy for finding in report.findings] == [
            "Remove /v1/traces from OTEL_EXPORTER_OTLP_ENDPOINT."
        ]

    @pytest.mark.parametrize(
        "environ", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_SERVICE_NAME": ""}, {"OTEL_SERVICENAME": "x"}]
    )
    def test_what_may_be_meant_is_only_a_note(self, environ: dict[str, str]) -> None:
        installed = Installed(
            PLAIN.versions,
            {**GROUPS, "opentelemetry_environment_variables": [Entry("sdk", "sdk", lambda: _Declares)]},
        )
        report = seen(environ, installed)
        assert report.ok
        assert len(report.findings) == 1


class _Declares:
    OTEL_SERVICE_NAME = "OTEL_SERVICE_NAME"


class TestPolicy:
    def test_a_valid_file_shows_in_the_settings(self, tmp_path: Path) -> None:
        (tmp_path / "policy.json").write_text('{"budget": 7, "rates": {"debug": 0.5}, "rules": []}')
        report = seen({"WEIR_POLICY_FILE": str(tmp_path / "policy.json")})
        rows = {row.name: (row.value, row.origin) for row in report.settings}
        assert rows["WEIR_LOG_BUDGET"] == ("7", "policy file")
        assert (rows["WEIR_LOG_RATES"][0] or "").startswith("debug=0.5,info=0.2")
        assert rows["WEIR_LOG_FIRST"] == ("10", "default")
        assert [row.value for row in report.policy] == ["valid, 0 rules"]
        assert report.ok

    def test_no_budget_is_said_so(self, tmp_path: Path) -> None:
        (tmp_path / "policy.json").write_text('{"budget": "none"}')
        report = seen({"WEIR_POLICY_FILE": str(tmp_path / "policy.json"), "WEIR_LOG_BUDGET": "5"})
        assert ("WEIR_LOG_BUDGET", None) in [(row.name, row.value) for row in report.settings]

    @pytest.mark.parametrize(("text", "code"), [('{"budgett": 7}', "WEIR-POLICY-002"), (None, "WEIR-POLICY-001")])
    def test_one_that_cannot_be_used_is_a_problem(self, text: str | None, code: str, tmp_path: Path) -> None:
        if text:
            (tmp_path / "policy.json").write_text(text)
        report = seen({"WEIR_POLICY_FILE": str(tmp_path / "policy.json")})
        assert findings(report) == [("problem", code)]
        assert [row.value for row in report.policy] == ["cannot be used"]

    def url(self, answer: policy_fetch.Answer | None, tmp_path: Path) -> Report:
        asked: list[tuple[str, str | None]] = []

        def fetch(url: str, key: str | None) -> policy_fetch.Answer:
            assert answer is not None
            asked.append((url, key))
            return answer

        environ = {
            **NAMED,
            "WEIR_POLICY_URL": "https://me:hush@example.com/policy.json",
            "WEIR_POLICY_KEY": "k",
            "WEIR_POLICY_CACHE": str(tmp_path),
        }
        report = examine(environ, PLAIN, ask=None, fetch=fetch if answer else None)
        assert asked == ([(environ["WEIR_POLICY_URL"], "k")] if answer else [])
        assert "hush" not in json.dumps(asdict(report))
        return report

    def test_a_url_is_asked(self, tmp_path: Path) -> None:
        report = self.url(policy_fetch.Fetched(b'{"first": 4}', None), tmp_path)
        assert report.ok
        assert ("WEIR_LOG_FIRST", "4", "policy URL") in [(row.name, row.value, row.origin) for row in report.settings]

    @pytest.mark.parametrize(
        ("answer", "code"),
        [
            (policy_fetch.Failed("401 Unauthorized"), "WEIR-POLICY-003"),
            (policy_fetch.Fetched(b'{"firstt": 4}', None), "WEIR-POLICY-002"),
        ],
    )
    def test_when_it_has_none_the_cache_applies(self, answer: policy_fetch.Answer, code: str, tmp_path: Path) -> None:
        PolicyCache(str(tmp_path), "https://me:hush@example.com/policy.json").store(b'{"first": 4}', None)
        report = self.url(answer, tmp_path)
        assert findings(report) == [("problem", code)]
        assert ("WEIR_LOG_FIRST", "4", "policy URL") in [(row.name, row.value, row.origin) for row in report.settings]
        assert "in the cache since" in (report.policy[0].value or "")

    def test_without_the_network_only_the_cache_is_looked_at(self, tmp_path: Path) -> None:
        assert [row.value for row in self.url(None, tmp_path).policy] == ["not asked; no policy in the cache"]


class TestPackages:
    @pytest.mark.parametrize(
        ("name", "version", "supported"),
        [
            ("opentelemetry_api", "1.44.0", True),
            ("opentelemetry_api", "1.43.2", False),
            ("opentelemetry_instrumentation", "0.65b0", True),
            ("opentelemetry_instrumentation", "0.64b0", False),
            ("opentelemetry_exporter_otlp", "2.0.0", True),
            ("opentelemetry_propagator_b3", "0.1", True),
            ("opentelemetry_api", "main", True),
        ],
    )
    def test_the_two_newest_minor_releases_are_supported(self, name: str, version: str, supported: bool) -> None:
        report = seen(installed=with_packages(**{name: version}))
        states = {package.name: package.supported for package in report.packages}
        assert states[name.replace("_", "-")] is supported
        assert report.ok is supported

    def test_a_newer_one_than_tested_is_noted(self) -> None:
        assert findings(seen(installed=with_packages(opentelemetry_sdk="1.99.0"))) == [("note", None)]

    def test_instrumentations_tell_whether_they_are_active(self) -> None:
        groups = {
            **GROUPS,
            "opentelemetry_instrumentor": [
                Entry(n, f"opentelemetry-instrumentation-{n}") for n in ("a", "b", "c", "d")
            ],
        }
        requires = {
            "opentelemetry-instrumentation-a": ['liba>=2; extra == "instruments"', "wrapt"],
            "opentelemetry-instrumentation-b": ['libb>=2; extra == "instruments"'],
            "opentelemetry-instrumentation-c": [
                'libc>=2; extra == "instruments-any"',
                'libx; extra == "instruments-any"',
            ],
        }
        installed = Installed({**PLAIN.versions, "liba": "2.1", "libb": "1.9", "libx": "1"}, groups, requires)
        states = {
            i.name: i.state for i in seen({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "d"}, installed).instrumentations
        }
        assert states == {
            "a": "active",
            "b": "idle: libb>=2 is not installed",
            "c": "active",
            "d": "off: OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
        }

    def test_a_framework_without_its_instrumentation_is_noted_with_the_command(self) -> None:
        report = seen(installed=with_packages(flask="3.1"))
        (note,) = report.findings
        assert (note.level, note.what) == ("note", "flask is installed but not instrumented")
        assert note.remedy.startswith("Run: pip install 'opentelemetry-instrumentation-flask")

    def test_a_models_client_without_its_instrumentation_is_noted_with_the_extra(self) -> None:
        (note,) = seen(
            installed=with_packages(
                openai="3.1", openai_agents="1", opentelemetry_instrumentation_genai_openai_agents="1"
            )
        ).findings
        assert note == Finding(
            "note", "openai is installed but not instrumented", "Run: pip install 'otelweir[openai]'", None
        )
        for package in ("opentelemetry_instrumentation_genai_openai", "openinference_instrumentation_openai"):
            assert findings(seen(installed=with_packages(openai="3.1", **{package: "1"}))) == []

    def test_of_several_instrumentations_for_a_library_one_is_active(self) -> None:
        packages = ("openinference-instrumentation-openai", "opentelemetry-instrumentation-genai-openai")
        installed = Installed(
            {**PLAIN.versions, "openai": "3.1", **dict.fromkeys(packages, "1")},
            {**GROUPS, "opentelemetry_instrumentor": [Entry("openai", package) for package in packages]},
        )
        report = seen(installed=installed)
        assert [(i.package, i.state) for i in report.instrumentations] == [
            (packages[0], f"off: {packages[1]} is used"),
            (packages[1], "active"),
        ]
        assert report.findings == [
            Finding(
                "problem",
                f"openai could be instrumented by {packages[0]} and by {packages[1]}; {packages[1]} is used",
                f"Run: pip uninstall {packages[0]}, or choose with WEIR_GENAI_VENDOR.",
                "WEIR-GENAI-004",
            )
        ]
        chosen = seen({"WEIR_GENAI_VENDOR": "openinference"}, installed)
        assert [i.state for i in chosen.instrumentations] == ["active", f"off: {packages[0]} is used"]
        assert chosen.findings == []

    def test_a_disabled_instrumentation_that_is_not_there_is_noted(self) -> None:
        assert findings(seen({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "flaskk, *"})) == [("note", None)]


class TestConflicts:
    two = Installed(
        PLAIN.versions,
        {
            **GROUPS,
            "opentelemetry_distro": [Entry("distro", "opentelemetry-distro"), Entry("weir", "otelweir")],
            "opentelemetry_configurator": [Entry("configurator", "opentelemetry-distro"), Entry("weir", "otelweir")],
        },
    )

    def test_two_distributions_are_one_problem_that_names_both_and_the_first(self) -> None:
        (finding,) = seen(installed=self.two).findings
        assert finding == Finding(
            "problem",
            "opentelemetry-distro and otelweir are installed as OpenTelemetry distributions; "
            "opentelemetry-distro happens to be found first",
            "Set OTEL_PYTHON_DISTRO=weir and OTEL_PYTHON_CONFIGURATOR=weir, or run: pip uninstall opentelemetry-distro",
            "WEIR-CONFIG-003",
        )

    def test_a_choice_settles_it(self) -> None:
        choice = {"OTEL_PYTHON_DISTRO": "weir", "OTEL_PYTHON_CONFIGURATOR": "weir"}
        assert seen(choice, self.two).findings == []
        assert len(seen(dict.fromkeys(choice, "distro"), self.two).findings) >= 2

    def test_lost_entry_points_are_a_problem(self) -> None:
        report = seen(installed=Installed(PLAIN.versions, {**GROUPS, "opentelemetry_distro": []}))
        assert findings(report) == [("problem", "WEIR-CONFIG-005")]

    @pytest.mark.parametrize("package", doctor.OTHER_SDKS)
    def test_another_vendors_sdk_is_noted(self, package: str) -> None:
        report = seen(installed=with_packages(**{package: "1"}))
        assert findings(report) == [("note", None)]

    def test_the_upstream_logging_instrumentation_is_no_problem(self) -> None:
        assert seen(installed=with_packages(opentelemetry_instrumentation_logging="0.66b1")).ok

    def test_a_configuration_file_needs_its_package(self, tmp_path: Path) -> None:
        (tmp_path / "otel.yaml").write_text("file_format: '1.0'")
        environ = {"OTEL_CONFIG_FILE": str(tmp_path / "otel.yaml")}
        assert findings(seen(environ)) == [("problem", "WEIR-CONFIG-005"), ("note", None)]
        assert findings(seen(environ, with_packages(opentelemetry_configuration="0.66b1"))) == [("note", None)]


class TestEndpoints:
    def test_one_cause_is_one_problem_for_all_signals(self) -> None:
        report = seen(answer=endpoint.Answer(failure="refused"))
        (finding,) = report.findings
        assert finding.code == "WEIR-SERVER-003"
        assert all(signal in finding.what for signal in ("traces", "metrics", "logs"))

    def test_clocks_that_differ_are_one_problem(self) -> None:
        report = seen(answer=endpoint.Answer(200, skew_s=3600.0))
        assert [finding.what for finding in report.findings] == ["This machine's clock is 3600 s behind the backend's"]

    def test_without_the_network_none_is_asked(self) -> None:
        report = examine(NAMED, PLAIN, ask=None, fetch=None)
        assert {e.state for e in report.endpoints} == {"not asked"}

    def test_an_address_that_cannot_be_used_is_reported_once(self) -> None:
        report = seen({"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"}, answer=endpoint.Answer(failure="other"))
        assert findings(report) == [("problem", "WEIR-CONFIG-001")]

    def test_signals_that_do_not_leave_as_otlp_say_why(self) -> None:
        report = seen({"OTEL_TRACES_EXPORTER": "none"})
        assert report.ok
        assert report.endpoints[-1].state == "not sent as OTLP: OTEL_TRACES_EXPORTER=none"
        off = seen({"OTEL_SDK_DISABLED": "true"})
        assert {e.state for e in off.endpoints} == {"not sent as OTLP: OTEL_SDK_DISABLED=true"}


PROCESS = """
    import os, sys, time
    from pathlib import Path
    from types import SimpleNamespace
    from opentelemetry.sdk._logs import LoggerProvider
    from otelweir.pipeline.spool import Spool, encode_log, join
    from otelweir.pipeline.transmit import Breaker, Courier, Gate, HttpSender, Route
    from otelweir.selfmetrics import Exchanges, Tally
    from otelweir.selfmetrics.status import status

    folder, endpoint, said, end = sys.argv[1:]
    spool = Spool(Path(folder), min_free_bytes=0)
    tally, exchanges = Tally(spool.accepted), Exchanges()
    routes = {"logs": Route(HttpSender(endpoint + "/v1/logs", dict), Gate(endpoint, breaker=Breaker(threshold=1)))}
    courier = Courier(spool, routes, join=join, counts=tally, observe=exchanges)
    provider = LoggerProvider(shutdown_on_exit=False)
    keep = SimpleNamespace(on_emit=lambda record: spool.append("logs", encode_log(record)))
    provider.add_log_record_processor(keep)
    for number in range(7):
        provider.get_logger("shop").emit(body=f"order {number}")
    courier.turn()
    now = time.time() - float(said)
    spool.publish(
        status(tally, spool, courier, exchanges, service="cart", started=now, time=now, max_bytes=2**29)
    )
    if end == "killed":
        os._exit(9)
    print("ready", flush=True)
    sys.stdin.read()
"""


class TestSpool:
    """With processes that run and have ended."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return tmp_path / "spool"

    @pytest.fixture
    def start(self, folder: Path) -> Iterator[Starts]:
        starts = Starts(folder)
        yield starts
        for process in starts.processes:
            process.communicate(timeout=30)

    def seen(self, folder: Path, **environ: str) -> Report:
        return seen({"WEIR_SPOOL_DIR": str(folder), **environ})

    def test_one_that_is_not_there_yet_will_be_made(self, folder: Path) -> None:
        report = self.seen(folder)
        assert report.ok
        assert ("state", "will be made when it is needed") in [(row.name, row.value) for row in report.spool]
        assert report.spool[0].value == str(folder)
        assert report.spool[0].origin == "variable"
        assert not folder.exists()

    def test_its_place_follows_the_services_name(self) -> None:
        state = os.environ["XDG_STATE_HOME"]
        assert seen().spool[0].value == f"{state}/otelweir/cart"
        unnamed = {"OTEL_SERVICE_NAME": "", "OTEL_RESOURCE_ATTRIBUTES": "a=b,service.name=shop%20a"}
        assert (seen(unnamed).spool[0].value or "").startswith(f"{state}/otelweir/shop_a-")
        assert seen({"OTEL_SERVICE_NAME": ""}).spool[0].value == "not known: the service has no name"

    def test_none_is_looked_for_where_none_is_used(self, folder: Path) -> None:
        report = self.seen(folder, WEIR_SPOOL="false")
        assert [row.origin for row in report.spool] == ["WEIR_SPOOL"]

    @pytest.mark.parametrize("kind", ["link", "file", "below a file"])
    def test_one_that_cannot_be_written_is_a_problem(self, kind: str, folder: Path, tmp_path: Path) -> None:
        if kind == "link":
            folder.symlink_to(tmp_path)
        else:
            folder.touch()
        report = self.seen(folder / "below" if kind == "below a file" else folder)
        assert findings(report) == [("problem", "WEIR-SPOOL-001")]

    def test_a_disk_without_room_is_a_problem(self, folder: Path) -> None:
        assert findings(self.seen(folder, WEIR_SPOOL_MIN_FREE_BYTES="900000GiB")) == [("problem", "WEIR-SPOOL-003")]

    def test_a_quota_that_is_nearly_reached_is_a_problem(self, folder: Path) -> None:
        (folder / "aside").mkdir(parents=True)
        with (folder / "aside" / "logs-1-0000000000000001.corrupt").open("wb") as file:
            file.truncate(19 * 2**19)
        report = self.seen(folder, WEIR_SPOOL_MAX_BYTES="10MiB")
        assert findings(report)[0] == ("problem", "WEIR-SPOOL-003")
        assert "95% full" in report.findings[0].what

    def test_a_running_process_tells_how_it_delivers(self, folder: Path, start: Starts) -> None:
        with Backend() as backend:
            process = start(backend.endpoint)
            report = self.seen(folder)
        assert report.ok
        assert report.findings == []
        [one] = report.deliveries
        assert (one.pid, one.state, one.signal) == (process.pid, "running", "logs")
        assert (one.delivered, one.waiting, one.lost, one.breaker) == (7, 0, {}, "closed")
        assert one.endpoint == backend.endpoint
        assert one.response_ms is not None
        assert one.target_bytes

    def test_one_that_cannot_deliver_is_a_problem(self, folder: Path, start: Starts) -> None:
        process = start("http://127.0.0.1:9")
        report = self.seen(folder)
        assert findings(report) == [("problem", "WEIR-SERVER-003")]
        assert report.findings[0].what == (
            f"Process {process.pid} cannot deliver logs to http://127.0.0.1:9: Connection refused; 7 records wait"
        )
        assert [(one.waiting, one.breaker) for one in report.deliveries] == [(7, "open")]

    def test_what_waited_when_it_last_spoke_has_grown_older(self, folder: Path, start: Starts) -> None:
        """A process speaks when something changes."""
        start("http://127.0.0.1:9", said_s=1000)
        [one] = self.seen(folder).deliveries
        assert one.oldest_age_s is not None
        assert 1000 <= one.oldest_age_s < 1100

    def test_what_gone_ones_left_is_noted_with_the_command(self, folder: Path, start: Starts) -> None:
        """Its own word is no longer true: what lies in the folder is."""
        for _ in range(2):
            start("http://127.0.0.1:9", end="killed")
        report = self.seen(folder)
        assert report.ok
        assert [(one.state, one.waiting, one.delivered) for one in report.deliveries] == [("orphan", 7, None)] * 2
        [finding] = report.findings
        assert finding.what == f"14 records of 2 processes that are gone wait in {folder}"
        assert finding.remedy.endswith(f"weir spool drain {folder}")

    def test_what_others_wrote_there_disturbs_nobody(self, folder: Path) -> None:
        home = folder / "77-0123abcd"
        home.mkdir(parents=True)
        (home / "status.json").write_text("{")
        (folder / "something").touch()
        assert self.seen(folder).ok

    def test_it_is_json(self, folder: Path, start: Starts) -> None:
        start("http://127.0.0.1:9")
        told = json.loads(json.dumps(asdict(self.seen(folder))))
        assert told["deliveries"][0]["signal"] == "logs"


class Starts:
    """Starts processes that send logs through a spool."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []

    def __call__(self, endpoint: str, *, said_s: float = 0, end: str = "runs") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", textwrap.dedent(PROCESS), str(self.folder), endpoint, str(said_s), end]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        assert process.stdout
        assert process.stdout.readline() == ("ready\n" if end == "runs" else "")
        if end == "killed":
            process.wait(30)
        return process
