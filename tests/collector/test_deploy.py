"""The ways to deploy: what they say is valid, fits together, and what they run does what is said of it."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.session  # type: ignore[import-untyped]
import botocore.validate  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from tests.collector.conftest import CONFIG, OTELCOL, ROOT, WAIT_S, Collector, Service, until

from otelweir.pipeline.spool.inspect import look, processes_in
from otelweir.pipeline.spool.settings import SpoolSettings
from otelweir.testing import Backend

if TYPE_CHECKING:
    Start = Callable[..., Collector]
    Run = Callable[..., Service]

DEPLOY = CONFIG / "deploy"
MANIFESTS = sorted(path.name for path in (DEPLOY / "kubernetes").glob("*.yaml"))
COMPOSE = ROOT / "build" / "compose"
UNITS = sorted(path.name for path in (DEPLOY / "systemd").iterdir())


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()))


def task() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "ecs" / "task-definition.json").read_text())
    return found


def services() -> dict[str, Any]:
    """Those of the compose file."""
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]
    return found


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in MANIFESTS:
        for document in documents(name):
            if "template" in document.get("spec", {}):
                yield name, document["spec"]["template"]["spec"]


def containers(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def unit_environ(name: str) -> dict[str, str]:
    lines = (DEPLOY / "systemd" / name).read_text().replace("%S", "/var/lib").splitlines()
    return dict(line.removeprefix("Environment=").split("=", 1) for line in lines if line.startswith("Environment="))


def collectors() -> dict[str, dict[str, str]]:
    """The variables of each way's collector, the gateway's among them."""
    found = {}
    for name, pod in pods():
        for container in containers(pod):
            if container["name"] in ("collector", "gateway"):
                found[f"kubernetes/{name}"] = {
                    one["name"]: re.sub(r"\$\(\w+\)", "x", one.get("value", "x")) for one in container["env"]
                }
    (ecs,) = (one for one in task()["containerDefinitions"] if one["name"] == "collector")
    found["ecs"] = {one["name"]: one["value"] for one in ecs["environment"]}
    found["compose"] = {
        name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in services()["collector"]["environment"].items()
    }
    found["systemd"] = unit_environ("weir-sidecar.service")
    return found


def drains() -> dict[str, list[str]]:
    """The command of each way's `drain`."""
    found = {}
    for name, pod in pods():
        for container in containers(pod):
            if container["name"] == "drain":
                found[f"kubernetes/{name}"] = container["command"]
    (ecs,) = (one for one in task()["containerDefinitions"] if one["name"] == "drain")
    found["ecs"] = ecs["command"]
    found["compose"] = services()["drain"]["command"]
    return found


def valid(config: str, environ: Mapping[str, str]) -> None:
    done = subprocess.run(
        [str(OTELCOL), "validate", f"--config={config}"],
        env={"PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


class TestTheCollector:
    @pytest.mark.parametrize("way", collectors())
    def test_takes_what_each_way_tells_it(self, way: str) -> None:
        environ = collectors()[way]
        config = CONFIG / ("gateway.yaml" if "gateway" in way else "sidecar.yaml")
        asked = set(re.findall(r"\$\{env:([A-Z0-9_]+)", config.read_text()))
        assert {name for name in environ if name.startswith(("SIDECAR_", "GATEWAY_"))} <= asked
        valid(str(config), environ)

    def test_takes_headers_from_a_secret(self) -> None:
        text = (DEPLOY / "kubernetes" / "gateway.yaml").read_text()
        (headers,) = re.findall(r"--from-literal=GATEWAY_EXPORT_HEADERS='(.*)'", text)
        valid(str(CONFIG / "gateway.yaml"), {"GATEWAY_EXPORT_HEADERS": headers})


class TestKubernetes:
    @pytest.mark.parametrize("version", ["1.29", "1.37"])
    @pytest.mark.parametrize("name", MANIFESTS)
    def test_manifests_follow_the_schema(self, name: str, version: str) -> None:
        """Of the oldest release with native sidecars, and of a new one; an unknown field is an error."""
        for document in documents(name):
            kubernetes_validate.validate(document, version, strict=True)

    def test_a_misspelt_field_is_an_error(self) -> None:
        """So that the test above can fail."""
        (deployment,) = documents("sidecar.yaml")
        deployment["spec"]["template"]["spec"]["initContainers"][0]["restartpolicy"] = "Always"
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(deployment, "1.29", strict=True)

    def test_the_configuration_is_the_one_that_is_tested(self) -> None:
        made = runpy.run_path(str(DEPLOY / "generate.py"))
        for file, name in made["FILES"].items():
            written = (DEPLOY / "kubernetes" / file).read_text()
            assert written == made["config_map"](name), "run collector-config/deploy/generate.py"
            (document,) = documents(file)
            assert document["data"] == {f"{name}.yaml": (CONFIG / f"{name}.yaml").read_text()}

    @pytest.mark.parametrize(("name", "pod"), [pytest.param(name, pod, id=name) for name, pod in pods()])
    def test_what_is_named_is_there(self, name: str, pod: dict[str, Any]) -> None:
        """Volumes, the configuration, ports, and variables that others are made of."""
        volumes = {volume["name"] for volume in pod["volumes"]}
        volumes |= {
            claim["metadata"]["name"]
            for document in documents(name)
            for claim in document.get("spec", {}).get("volumeClaimTemplates", [])
        }
        configured = {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
        assert configured <= {one["metadata"]["name"] for file in MANIFESTS for one in documents(file)}
        for container in containers(pod):
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            before: set[str] = set()
            for variable in container.get("env", []):
                assert set(re.findall(r"\$\((\w+)\)", variable.get("value", ""))) <= before
                before.add(variable["name"])
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                port = container.get(probe, {}).get("httpGet", {}).get("port", 0)
                assert port in ports or isinstance(port, int)

    def test_the_collector_starts_first_and_ends_last(self) -> None:
        """Sidecars are ended in the reverse of their order, and a service waits for the startup probe."""
        (deployment,) = documents("sidecar.yaml")
        collector, drain = deployment["spec"]["template"]["spec"]["initContainers"]
        assert (collector["name"], drain["name"]) == ("collector", "drain")
        assert collector["restartPolicy"] == drain["restartPolicy"] == "Always"
        assert collector["startupProbe"]["httpGet"]["port"] == 13133
        assert "readinessProbe" not in collector

    def test_the_queue_has_room(self) -> None:
        """On disk, three signals can take nine times what one queue may hold: see the README of collector-config."""

        def default(file: str, variable: str) -> int:
            (found,) = set(re.findall(rf"\$\{{env:{variable}:-(\d+)\}}", (CONFIG / file).read_text()))
            return int(found)

        (deployment,) = documents("sidecar.yaml")
        sizes = {
            volume["name"]: volume["emptyDir"].get("sizeLimit", "0Gi")
            for volume in deployment["spec"]["template"]["spec"]["volumes"]
            if "emptyDir" in volume
        }
        assert int(sizes["queue"].removesuffix("Gi")) * 2**30 >= 9 * default("sidecar.yaml", "SIDECAR_QUEUE_BYTES")
        assert int(sizes["spool"].removesuffix("Gi")) * 2**30 >= 2 * SpoolSettings().spool_max_bytes
        (claim,) = documents("gateway.yaml")[-1]["spec"]["volumeClaimTemplates"]
        size = claim["spec"]["resources"]["requests"]["storage"]
        assert int(size.removesuffix("Gi")) * 2**30 >= 9 * default("gateway.yaml", "GATEWAY_QUEUE_BYTES")

    def test_who_drains_is_who_wrote(self) -> None:
        """The spool's folders are for their owner only."""
        users = {pod["securityContext"]["runAsUser"] for _, pod in pods()}
        assert users == {10001}
        for _, pod in pods():
            for container in containers(pod):
                assert "runAsUser" not in container["securityContext"] or container["name"] == "folders"


class TestEcs:
    def test_the_task_is_one_that_ecs_registers(self) -> None:
        """By the model of the service that AWS's own client checks requests with."""
        model = botocore.session.get_session().get_service_model("ecs").operation_model("RegisterTaskDefinition")
        check = botocore.validate.ParamValidator().validate
        assert check(task(), model.input_shape).generate_report() == ""
        assert "stopTimeOut" in check({**task(), "stopTimeOut": 1}, model.input_shape).generate_report()

    def test_what_is_named_is_there(self) -> None:
        volumes = {volume["name"] for volume in task()["volumes"]}
        before: set[str] = set()
        for container in task()["containerDefinitions"]:
            assert {mount["sourceVolume"] for mount in container["mountPoints"]} <= volumes
            # A circle of these is refused.
            assert {other["containerName"] for other in container.get("dependsOn", [])} <= before
            before.add(container["name"])
        limits = sum(container.get("memory", 0) for container in task()["containerDefinitions"])
        assert limits < int(task()["memory"])
        assert {one.get("user") for one in task()["containerDefinitions"] if one["name"] != "folders"} == {
            "10001:10001"
        }

    def test_the_configuration_fits_a_parameter(self) -> None:
        """It comes to the collector as a variable, from a parameter of the advanced tier, which takes 8 KB."""
        text = (CONFIG / "sidecar.yaml").read_text()
        assert len(text.encode()) <= 8192
        valid("env:SIDECAR_CONFIG", {**collectors()["ecs"], "SIDECAR_CONFIG": text})


class TestCompose:
    def _config(self, file: Path, folder: Path) -> subprocess.CompletedProcess[str]:
        if not os.access(COMPOSE, os.X_OK):
            remedy = f"{COMPOSE} is not there: tests/collector/compose/build.sh builds it"
            if os.environ.get("CI"):
                pytest.fail(remedy)
            pytest.skip(remedy)
        return subprocess.run([str(COMPOSE), str(file)], cwd=folder, capture_output=True, text=True, timeout=60)

    def test_the_file_is_what_compose_reads(self) -> None:
        done = self._config(DEPLOY / "compose" / "compose.yaml", DEPLOY / "compose")
        assert done.returncode == 0, done.stderr
        read = json.loads(done.stdout)
        assert set(read["services"]) == {"folders", "collector", "drain", "cart"}
        assert Path(read["configs"]["sidecar"]["file"]) == CONFIG / "sidecar.yaml"
        assert {one.get("user") for name, one in read["services"].items() if name != "folders"} == {"10001:10001"}
        assert not any("ports" in one for one in read["services"].values())

    def test_an_unknown_name_is_an_error(self, tmp_path: Path) -> None:
        text = (DEPLOY / "compose" / "compose.yaml").read_text()
        for good, bad in (("stop_grace_period", "stop_grace"), ("- queue:/var", "- queues:/var")):
            (tmp_path / "compose.yaml").write_text(text.replace(good, bad))
            done = self._config(tmp_path / "compose.yaml", tmp_path)
            assert done.returncode == 1
            assert bad.split("/")[0].strip("- :") in done.stderr


class TestSystemd:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """The units, and what they run, as on a host."""
        if shutil.which("systemd-analyze") is None:
            remedy = "systemd-analyze is missing (Debian: apt-get install systemd)"
            if os.environ.get("CI"):
                pytest.fail(remedy)
            pytest.skip(remedy)
        units = tmp_path / "etc" / "systemd" / "system"
        units.mkdir(parents=True)
        for name in UNITS:
            shutil.copy(DEPLOY / "systemd" / name, units)
        system = Path("/usr/lib/systemd/system")
        shutil.copytree(system, tmp_path / "usr/lib/systemd/system", symlinks=True)
        text = "\n".join((units / name).read_text() for name in UNITS)
        for path in re.findall(r"^Exec\w+=(/\S+)|(/opt/cart/bin/\w+)", text, re.MULTILINE):
            program = tmp_path / "".join(path).replace("%i", "cart").lstrip("/")
            program.parent.mkdir(parents=True, exist_ok=True)
            program.touch(0o755)
        return tmp_path

    def _analyze(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["systemd-analyze", *arguments],
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def _names(self) -> list[str]:
        return [name.replace("@.", "@cart.") for name in UNITS]

    def test_units_are_what_systemd_reads(self, root: Path) -> None:
        done = self._analyze("verify", "--man=no", f"--root={root}", *self._names())
        assert (done.returncode, done.stderr) == (0, "")
        unit = root / "etc/systemd/system/cart.service"
        unit.write_text(unit.read_text().replace("StateDirectory=", "StateFolder="))
        assert "StateFolder" in self._analyze("verify", "--man=no", f"--root={root}", "cart.service").stderr

    @pytest.mark.parametrize("name", [name.replace("@.", "@cart.") for name in UNITS if name.endswith(".service")])
    def test_services_are_exposed_to_little(self, name: str, root: Path) -> None:
        """Two of ten, by systemd's own measure; a service that says nothing of it has 9.6."""
        done = self._analyze("security", "--offline=true", f"--root={root}", "--threshold=20", name)
        assert done.returncode == 0, done.stdout

    def test_service_and_drain_mean_the_same_folder(self) -> None:
        drain = (DEPLOY / "systemd" / "weir-drain@.service").read_text().replace("%i", "cart")
        spool = unit_environ("cart.service")["WEIR_SPOOL_DIR"]
        assert f"{spool.replace('/var/lib', '%S')}\n" in drain
        assert "User=cart\n" in drain
        assert "User=cart\n" in (DEPLOY / "systemd" / "cart.service").read_text()


def weir(command: list[str], folder: Path) -> list[str]:
    """The command with this environment's Weir, and with the volume in a folder."""
    program, *arguments = (part.replace("/var/spool/weir", str(folder)) for part in command)
    assert Path(program).name == "weir"
    return [str(Path(sys.executable).with_name("weir")), *arguments]


class TestTheDrain:
    """What a killed service left is sent by the command that the manifests run beside it, through the real sidecar."""

    def _killed(self, service: Run, sidecar: Collector, spool: Path) -> None:
        """A service that logs in an outage of the sidecar and is killed in it."""
        sidecar.kill()
        shop = service(sidecar.endpoints["http/protobuf"], WEIR_SPOOL_DIR=str(spool))
        shop.do("orders 0 100")
        shop.kill()
        assert "orphan" in processes_in(spool).values()

    def _arrives(self, backend: Backend) -> None:
        wanted = sorted(f"order {n}" for n in range(100))
        backend.wait_for(
            lambda: (
                sorted(log.body for log in backend.logs if log.scope == "shop") == wanted
                and sorted(span.name for span in backend.spans) == wanted
            ),
            WAIT_S,
        )

    def test_is_one_command_in_all_containers(self) -> None:
        commands = list(drains().values())
        assert len(commands) == 4
        assert all(command == commands[0] for command in commands)

    def test_beside_a_service_sends_what_it_left(
        self, collector: Start, service: Run, backend: Backend, tmp_path: Path
    ) -> None:
        """Started before the service, on an empty volume, as in a pod; and ended after it."""
        volume = tmp_path / "volume"
        volume.mkdir()
        sidecar = collector("sidecar.yaml", "SIDECAR", EXPORT_ENDPOINT=backend.endpoint)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "WEIR_"))}
        with subprocess.Popen(
            weir(drains()["kubernetes/sidecar.yaml"], volume),
            env={**clean, "OTEL_EXPORTER_OTLP_ENDPOINT": sidecar.endpoints["http/protobuf"]},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as drain:
            said: list[str] = []
            assert drain.stdout is not None
            reading = threading.Thread(target=said.extend, args=(drain.stdout,), daemon=True)
            reading.start()
            try:
                self._killed(service, sidecar, volume / "cart")
                sidecar.start()
                self._arrives(backend)
                drain.send_signal(signal.SIGTERM)
                assert drain.wait(30) == 0
            finally:
                drain.kill()
            reading.join(30)
        assert "200 records (traces 100, logs 100) delivered." in "".join(said)
        until(lambda: not processes_in(volume / "cart"), "an empty spool")

    def test_of_a_timer_sends_what_it_left(
        self, collector: Start, service: Run, backend: Backend, tmp_path: Path
    ) -> None:
        unit = (DEPLOY / "systemd" / "weir-drain@.service").read_text()
        (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
        spool = tmp_path / "cart" / "spool"
        command = weir(shlex.split(line.replace("%i", "cart").replace("%S", str(tmp_path))), tmp_path)
        sidecar = collector("sidecar.yaml", "SIDECAR", EXPORT_ENDPOINT=backend.endpoint)
        self._killed(service, sidecar, spool)
        sidecar.start()
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "WEIR_"))}
        done = subprocess.run(
            command,
            env={**clean, "OTEL_EXPORTER_OTLP_ENDPOINT": sidecar.endpoints["http/protobuf"]},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert sum(found.waiting for process in look(spool).processes for found in process.files) == 0
        self._arrives(backend)
