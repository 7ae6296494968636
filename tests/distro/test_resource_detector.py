"""The resource that the distribution's defaults give: what wins, what stays at home, what a fork changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.resources import OTELResourceDetector, Resource, get_aggregated_resources

from otelweir.distro import resource
from otelweir.distro.defaults import OTEL_DEFAULTS
from otelweir.distro.resource import WeirResourceDetector, read
from otelweir.pipeline.capture.settings import ResourceSettings

DETECTORS = "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS"
CREATE = """
import json, os, sys
from opentelemetry.sdk.resources import Resource
print(json.dumps(dict(Resource.create().attributes)))
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH that registers the detector, whether or not the package's own entry points do."""
    metadata = tmp_path / "weir_entry-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: weir-entry\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(
        "[opentelemetry_resource_detector]\nweir = otelweir.distro.resource:WeirResourceDetector\n"
    )
    return tmp_path


def run(code: str, installed: Path, *arguments: str, **environ: str) -> Any:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "WEIR_"))}
    names = [*OTEL_DEFAULTS[DETECTORS].split(","), "weir"]
    done = subprocess.run(
        # From 3.12 on, Python warns of every fork of a process that has threads.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *arguments],
        env={**clean, "PYTHONPATH": str(installed), DETECTORS: ",".join(dict.fromkeys(names)), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


class TestTheDefaultDetectors:
    def test_describe_service_instance_host_os_process_and_deployment(self, installed: Path) -> None:
        attributes = run(CREATE, installed, WEIR_ENVIRONMENT="production")
        assert attributes["deployment.environment.name"] == "production"
        assert {"service.instance.id", "host.name", "os.type", "process.pid"} <= attributes.keys()

    def test_yield_to_what_the_user_says(self, installed: Path) -> None:
        """OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME win over anything detected."""
        attributes = run(
            CREATE,
            installed,
            WEIR_ENVIRONMENT="production",
            K_SERVICE="detected",
            OTEL_SERVICE_NAME="cart",
            OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=staging,host.name=h,service.instance.id=7",
        )
        names = ("deployment.environment.name", "service.name", "host.name", "service.instance.id")
        assert [attributes[name] for name in names] == ["staging", "cart", "h", "7"]

    def test_do_not_tell_the_arguments_of_the_command(self, installed: Path) -> None:
        """A password on the command line must not leave the process."""
        assert "hunter2" not in json.dumps(run(CREATE, installed, "--password=hunter2"))

    def test_describe_the_child_after_a_fork(self, installed: Path) -> None:
        code = """
import json, os, sys
from opentelemetry.sdk.trace import TracerProvider
provider = TracerProvider()
parent = dict(provider.resource.attributes)
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
else:
    child = dict(provider.resource.attributes)
    print(json.dumps({"parent": parent, "child": child, "pid": os.getpid()}))
"""
        told = run(code, installed, WEIR_ENVIRONMENT="production")
        parent, child = told["parent"], told["child"]
        assert child["process.pid"] == told["pid"] != parent["process.pid"]
        assert child["process.parent_pid"] == parent["process.pid"]
        assert child["service.instance.id"] != parent["service.instance.id"]
        assert child["deployment.environment.name"] == "production"


class TestTheDetector:
    def test_reads_the_settings_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WEIR_SERVICE_VERSION", "1.2.3")
        assert WeirResourceDetector().detect().attributes["service.version"] == "1.2.3"

    def test_takes_settings_from_code(self) -> None:
        detector = WeirResourceDetector(settings=ResourceSettings(service_version="2"))
        assert detector.detect().attributes["service.version"] == "2"

    def test_comes_before_the_users_word(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=3")
        detectors = [WeirResourceDetector(settings=ResourceSettings(service_version="2")), OTELResourceDetector()]
        merged = get_aggregated_resources(detectors, Resource.get_empty())
        assert merged.attributes["service.version"] == "3"

    def test_gives_an_empty_resource_when_it_fails(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(resource, "deployment", lambda *_: 1 / 0)
        assert WeirResourceDetector().detect() == Resource.get_empty()
        assert "failed to detect" in caplog.text
        with pytest.raises(ZeroDivisionError):
            WeirResourceDetector(raise_on_error=True).detect()


class TestReading:
    def test_is_bounded(self, tmp_path: Path) -> None:
        (tmp_path / "long").write_bytes(b"x" * (resource.MOST_BYTES + 1))
        assert len(read(str(tmp_path / "long")) or "") == resource.MOST_BYTES

    def test_takes_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "bytes").write_bytes(b"\xff\xfe")
        assert read(str(tmp_path / "bytes")) == "\ufffd\ufffd"

    def test_gives_nothing_for_what_cannot_be_read(self, tmp_path: Path) -> None:
        assert [read(str(tmp_path / "missing")), read(str(tmp_path))] == [None, None]
