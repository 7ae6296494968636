"""OpenTelemetry's own variables: what is allowed, and what may be shown."""

from __future__ import annotations

import importlib

import pytest
from opentelemetry.util.re import parse_env_headers

from otelweir import errors
from otelweir.distro.defaults import OTEL_DEFAULTS
from otelweir.distro.installed import Entry, Installed, normalized
from otelweir.distro.otel_variables import CHECKS, headers, known_names, masked, misspelt, problems
from otelweir.variables import scrubbed

HERE = Installed.here()


def broken() -> object:
    raise ImportError("no module named tail")


def found(**environ: str) -> list[str]:
    return [wrong.what for wrong in problems(environ, HERE)]


class TestValues:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("OTEL_SDK_DISABLED", "TRUE"),
            ("OTEL_TRACES_EXPORTER", "otlp,console"),
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:pw@example.com:4318/otlp"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1]:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x=1"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2.5"),
            ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "gzip"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_PROPAGATORS", "tracecontext,baggage"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "4096"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "512"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=b,c=d=e"),
            ("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "host,os"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""),
        ],
    )
    def test_good_ones_pass(self, name: str, value: str) -> None:
        assert found(**{name: value}) == []

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("OTEL_SDK_DISABLED", "yes", "true or false"),
            ("OTEL_TRACES_EXPORTER", "otlp,jaegr", "is not a list of"),
            ("OTEL_LOGS_EXPORTER", "otpl", "did you mean otlp?"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "grpc or http/protobuf"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "a URL such as http://localhost:4318"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:99999", "a URL"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://", "a URL"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Bearer abc", "pairs such as key=value"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "a number, 0 or more"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli", "none, gzip, deflate or zstd"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file.pem", "No such file"),
            ("OTEL_TRACES_SAMPLER", "parentbased_ratio", "did you mean parentbased_traceidratio?"),
            ("OTEL_PROPAGATORS", "b3", "tracecontext"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "-1", "a whole number, 1 or more"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "60s", "a number"),
            ("OTEL_RESOURCE_ATTRIBUTES", "production", "pairs"),
            ("OTEL_METRICS_EXEMPLAR_FILTER", "some", "trace_based"),
            ("OTEL_PYTHON_DISTRO", "weird", "did you mean weir?"),
        ],
    )
    def test_bad_ones_are_told_with_what_is_allowed(self, name: str, value: str, words: str) -> None:
        (what,) = found(**{name: value})
        assert what.startswith(f"{name}=")
        assert words in what

    @pytest.mark.parametrize(("argument", "good"), [("0.25", True), ("1.5", False), ("half", False)])
    def test_the_ratio_is_checked_where_a_sampler_uses_it(self, argument: str, good: bool) -> None:
        environ = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": argument}
        assert (found(**environ) == []) is good
        assert found(OTEL_TRACES_SAMPLER="always_on", OTEL_TRACES_SAMPLER_ARG=argument) == []

    @pytest.mark.parametrize(
        ("argument", "words"),
        [
            ("rate=0.1,per_second=50", None),
            ("", None),
            ("rate=2", "(rate is not a number from 0 to 1)"),
            ("/no/such/policy.yaml", "(/no/such/policy.yaml: No such file or directory)"),
        ],
    )
    def test_the_argument_of_weirs_sampler_is_checked(self, argument: str, words: str | None) -> None:
        environ = {"OTEL_TRACES_SAMPLER": "weir", "OTEL_TRACES_SAMPLER_ARG": argument}
        installed = Installed(groups={"opentelemetry_traces_sampler": [Entry("weir", "otelweir", lambda: None)]})
        told = [what for _, what, _ in problems(environ, installed)]
        assert (told == []) if words is None else words in told[0]

    def test_grpc_takes_a_host_and_port(self) -> None:
        """The specification leaves the form to the gRPC client."""
        assert found(OTEL_EXPORTER_OTLP_PROTOCOL="grpc", OTEL_EXPORTER_OTLP_ENDPOINT="collector:4317") == []

    def test_a_component_that_cannot_be_loaded_is_told_with_the_reason(self) -> None:
        installed = Installed(groups={"opentelemetry_traces_sampler": [Entry("tail", "tail-sampler", broken)]})
        ((problem, what, _),) = problems({"OTEL_TRACES_SAMPLER": "tail"}, installed)
        assert problem is errors.NOT_LOADED
        assert "tail of tail-sampler fails with ImportError: no module named tail" in what

    def test_a_secret_is_not_repeated(self) -> None:
        assert "hush" not in "".join(
            found(OTEL_EXPORTER_OTLP_HEADERS="hush", OTEL_EXPORTER_OTLP_ENDPOINT="ftp://me:hush@example.com")
        )

    def test_the_distributions_own_defaults_are_good(self) -> None:
        assert found(**OTEL_DEFAULTS) == []


class TestNames:
    def test_the_checks_are_for_variables_that_the_sdk_declares(self) -> None:
        sdk = importlib.import_module("opentelemetry.sdk.environment_variables")
        api = importlib.import_module("opentelemetry.environment_variables")
        launcher = importlib.import_module("opentelemetry.instrumentation.environment_variables")
        declared = {
            value for module in (sdk, api, launcher) for value in vars(module).values() if isinstance(value, str)
        }
        assert set(CHECKS) - declared == set()

    def test_a_slip_of_the_pen_is_told_with_the_nearest_name(self) -> None:
        environ = {"OTEL_SERVICENAME": "x", "OTEL_PYTHON_DJANGO_EXCLUDED_URLS": "x", "OTEL_SERVICE_NAME": "x"}
        assert list(misspelt(environ, known_names(HERE))) == [("OTEL_SERVICENAME", "OTEL_SERVICE_NAME")]

    def test_packages_are_named_as_the_index_names_them(self) -> None:
        assert normalized("Flask_SQL.Alchemy") == "flask-sql-alchemy"
        assert HERE.versions["otelweir"]


class TestMasking:
    @pytest.mark.parametrize(
        ("name", "value", "shown"),
        [
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hush,b=hush", "api-key=***,b=***"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "hush", "***"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "aHVzaA==", "***"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization: Bearer hush=x", "***"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://hush@h/p", "https://***@h/p"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://h/p?key=hush&b=hush#x", "https://h/p?key=***&b=***#x"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/etc/key.pem", "/etc/key.pem"),
            ("OTEL_VENDOR_TOKEN", "hush", "***"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team=a,api.key=hush", "team=a,api.key=***"),
            ("OTEL_SERVICE_NAME", "cart", "cart"),
        ],
    )
    def test_leaves_what_is_no_secret(self, name: str, value: str, shown: str) -> None:
        assert masked(name, value) == shown

    def test_works_within_a_sentence(self) -> None:
        assert scrubbed("from http://me:hush@h/x to https://hush@i") == "from http://***@h/x to https://***@i"


class TestAddresses:
    @pytest.mark.parametrize(
        "value",
        [
            "u:hush@127.0.0.1:1",
            "http:/u:hush@h",
            "http://u:hush/x@h",
            "hush@h",
            "http://u:a hush@h",
            "http:/h?key=hush",
        ],
    )
    def test_that_are_malformed_show_no_credentials(self, value: str) -> None:
        """A slip in the address must not show the password that follows it."""
        assert "hush" not in masked("OTEL_EXPORTER_OTLP_ENDPOINT", value)
        assert "hush" not in "".join(found(OTEL_EXPORTER_OTLP_ENDPOINT=value))

    @pytest.mark.parametrize("value", ["u:hush@127.0.0.1:1", "http:/u:hush@h", "http://u:hush/x@h"])
    def test_show_no_credentials_in_a_sentence(self, value: str) -> None:
        assert "hush" not in scrubbed(f"X={value} or '{value}' or {value}: no")

    def test_leave_the_punctuation_of_the_sentence(self) -> None:
        assert scrubbed("https://h/p?key=hush: 404") == "https://h/p?key=***: 404"
        assert scrubbed("(https://h/p?key=hush).") == "(https://h/p?key=***)."


class TestHeaders:
    @pytest.mark.parametrize(
        "text",
        [
            "A=1%20b, c=d,",
            "authorization=Bearer a b%20c",
            "a==,b=c=d,a=e",
            "Authorization: Bearer x",
            "Authorization: Bearer x==",
            "a=b;c, d=e",
            'a="b",=c,d',
            "\ta = b\t,c%41=d",
            "a=\u00e9,b=%0A",
        ],
    )
    def test_are_what_the_exporters_take(self, text: str) -> None:
        assert dict(headers(text)) == dict(parse_env_headers(text, liberal=True))

    @pytest.mark.parametrize("text", ["Authorization: Bearer hush", "Authorization: Bearer hush=", "a=hu%0Ash"])
    def test_that_cannot_be_sent_are_told_without_their_value(self, text: str) -> None:
        (what,) = found(OTEL_EXPORTER_OTLP_HEADERS=text)
        assert not any(secret in what for secret in ("hu", "sh"))


class TestRemedies:
    def told(self, **environ: str) -> str:
        ((_, _, remedy),) = problems(environ, HERE)
        return remedy or ""

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("OTEL_BLRP_MAX_QUEUE_SIZE", "-1"),
            ("OTEL_BSP_SCHEDULE_DELAY", "0"),
            ("OTEL_ATTRIBUTE_COUNT_LIMIT", "abc"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "-1"),
            ("OTEL_METRICS_EXEMPLAR_FILTER", "some"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
            ("OTEL_BLRP_MAX_QUEUE_SIZE", "100"),
        ],
    )
    def test_say_when_nothing_is_sent_meanwhile(self, name: str, value: str) -> None:
        """Tried with the SDK: it raises at start-up."""
        assert "the service sends nothing" in self.told(**{name: value})

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("OTEL_BLRP_MAX_QUEUE_SIZE", "many"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "60s"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "-1"),
        ],
    )
    def test_say_when_the_default_applies(self, name: str, value: str) -> None:
        assert self.told(**{name: value}) == "Correct the value; until then the default applies."

    def test_a_batch_counts_only_where_there_is_an_exporter(self) -> None:
        assert found(OTEL_BSP_MAX_EXPORT_BATCH_SIZE="4096", OTEL_TRACES_EXPORTER="none") == []

    def test_a_wrong_propagator_is_not_blamed_on_other_components(self) -> None:
        """Nothing that imports OpenTelemetry can be loaded then."""
        installed = Installed(groups={"opentelemetry_traces_sampler": [Entry("tail", "tail-sampler", broken)]})
        ((problem, what, remedy),) = problems({"OTEL_PROPAGATORS": "bogus", "OTEL_TRACES_SAMPLER": "tail"}, installed)
        assert (problem, "OTEL_PROPAGATORS" in what) == (errors.NOT_LOADED, True)
        assert "does not start" in (remedy or "")
