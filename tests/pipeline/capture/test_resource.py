"""The deployment context: from which variable and file each attribute comes, and what is left out."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common._internal import _encode_attributes
from opentelemetry.sdk.resources import Resource

from otelweir.pipeline.capture import resource
from otelweir.pipeline.capture.resource import Value, deployment, repository_url, stated
from otelweir.pipeline.capture.settings import ResourceSettings
from otelweir.variables import documentation

ID = "0123456789abcdef" * 4
UID = "8dd5c4d3-6bd5-4c7f-ae1b-5c8f7b8b1a11"
IN_A_POD = {resource.POD_SIGN: "10.0.0.1"}


def found(
    environ: Mapping[str, str] | None = None, files: Mapping[str, str] | None = None, **settings: str
) -> dict[str, Value]:
    return deployment(environ or {}, (files or {}).get, ResourceSettings(**settings))


class TestVariables:
    @pytest.mark.parametrize(
        ("name", "variable"), [(name, v) for name, vs in resource.SOURCES.items() for v in vs if "url" not in name]
    )
    def test_every_documented_variable_gives_its_attribute(self, name: str, variable: str) -> None:
        assert found({variable: "shop"})[name] == "shop"

    @pytest.mark.parametrize(("name", "variable"), [(name, v) for name, vs in resource.IN_A_POD.items() for v in vs])
    def test_common_names_count_in_a_pod_only(self, name: str, variable: str) -> None:
        """Jenkins sets NODE_NAME, many a shell NAMESPACE."""
        assert found({variable: "blue", **IN_A_POD})[name] == "blue"
        assert name not in found({variable: "blue"})

    def test_the_first_of_several_variables_wins(self) -> None:
        assert found({"CI_COMMIT_SHA": "b", "GIT_COMMIT": "a"})["vcs.ref.head.revision"] == "a"

    def test_weirs_own_settings_win_over_everything_found(self) -> None:
        context = found(
            {"APP_ENV": "x", "APP_VERSION": "x", "SERVICE_NAMESPACE": "x", "GIT_COMMIT": "x", "BUILD_ID": "x"},
            environment="production",
            service_version="1.2.3",
            service_namespace="shop",
            vcs_revision="abc",
            build_id="42",
        )
        assert context == {
            "deployment.environment.name": "production",
            "service.version": "1.2.3",
            "service.namespace": "shop",
            "vcs.ref.head.revision": "abc",
            "cicd.pipeline.run.id": "42",
        }

    def test_stated_holds_only_what_is_set(self) -> None:
        assert stated(ResourceSettings()) == {}
        assert stated(ResourceSettings(build_id="42")) == {"cicd.pipeline.run.id": "42"}

    @pytest.mark.parametrize(
        "value", ["", "   ", "a\x00b", "a\nb", "\udc80", "x" * 1025, "$(POD_NAME)", "${GIT_COMMIT}"]
    )
    def test_a_value_that_is_not_one_is_left_out(self, value: str) -> None:
        """Undecodable bytes arrive as surrogates, on which an exporter fails; the next variable may be better."""
        assert found({"GIT_COMMIT": value, "GITHUB_SHA": "abc"}) == {"vcs.ref.head.revision": "abc"}

    @pytest.mark.parametrize("value", ["/etc/profile d", "a sentence, really", "x" * 65])
    def test_an_environment_that_is_no_name_is_left_out(self, value: str) -> None:
        assert found({"ENVIRONMENT": value}) == {}


class TestRepositoryUrl:
    @pytest.mark.parametrize(
        ("remote", "url"),
        [
            ("https://example.com/shop/cart.git", "https://example.com/shop/cart"),
            ("https://ci:secret@example.com:8443/shop/cart/", "https://example.com:8443/shop/cart"),
            ("https://example.com/shop/cart?token=secret#frag", "https://example.com/shop/cart"),
            ("git@example.com:shop/cart.git", "https://example.com/shop/cart"),
            ("ssh://git@example.com:22/shop/cart.git", "https://example.com/shop/cart"),
            ("http://[::1]:3000/shop/cart", "http://[::1]:3000/shop/cart"),
        ],
    )
    def test_is_what_a_browser_would_open(self, remote: str, url: str) -> None:
        assert repository_url(remote) == url

    @pytest.mark.parametrize(
        "remote", ["", "/srv/git/cart", "file:///srv/cart", "https://", "https://example.com", "http://[x"]
    )
    def test_is_nothing_for_what_no_browser_opens(self, remote: str) -> None:
        assert repository_url(remote) is None

    @given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=8), st.sampled_from(["/", ":x@", "@"]))
    def test_never_holds_a_credential(self, secret: str, shape: str) -> None:
        for remote in (
            f"https://{secret}@h.example/a/b",
            f"https://u:{secret}@h.example/a/b",
            f"ssh://{secret}@h.example/a/b",
        ):
            assert secret not in (repository_url(remote) or "").removeprefix("https://h.example/a/b")

    def test_is_put_together_from_githubs_variables(self) -> None:
        context = found({"GITHUB_SERVER_URL": "https://github.example", "GITHUB_REPOSITORY": "shop/cart"})
        assert context == {
            "vcs.repository.url.full": "https://github.example/shop/cart",
            "vcs.repository.name": "cart",
        }


class TestImage:
    @pytest.mark.parametrize(
        ("reference", "expected"),
        [
            ("cart", {"container.image.name": "cart"}),
            ("r.example:5000/shop/cart", {"container.image.name": "r.example:5000/shop/cart"}),
            (
                "r.example:5000/shop/cart:1.2",
                {"container.image.name": "r.example:5000/shop/cart", "container.image.tags": ["1.2"]},
            ),
            (
                f"cart:1@sha256:{ID}",
                {
                    "container.image.name": "cart",
                    "container.image.tags": ["1"],
                    "container.image.repo_digests": [f"cart@sha256:{ID}"],
                },
            ),
        ],
    )
    def test_a_reference_is_taken_apart(self, reference: str, expected: dict[str, Value]) -> None:
        assert found({"CONTAINER_IMAGE": reference}) == expected

    def test_the_tag_may_have_a_variable_of_its_own(self) -> None:
        context = found({"CONTAINER_IMAGE_NAME": "cart", "CONTAINER_IMAGE_TAG": "7"})
        assert context == {"container.image.name": "cart", "container.image.tags": ["7"]}


class TestKubernetes:
    def test_the_host_name_is_the_pods_name(self) -> None:
        assert found({**IN_A_POD, "HOSTNAME": "cart-7d9"})["k8s.pod.name"] == "cart-7d9"

    def test_the_host_name_of_a_shared_network_is_not_the_pods(self) -> None:
        assert "k8s.pod.name" not in found({**IN_A_POD, "HOSTNAME": "node-1", "NODE_NAME": "node-1"})

    def test_the_namespace_comes_from_the_service_account_and_names_the_service_too(self) -> None:
        context = found(IN_A_POD, {resource.NAMESPACE_FILE: "shop\n"})
        assert context == {"k8s.namespace.name": "shop", "service.namespace": "shop"}

    def test_a_strange_namespace_file_is_left_out(self) -> None:
        assert found(IN_A_POD, {resource.NAMESPACE_FILE: "<html>\n"}) == {}


CGROUPS = {
    "docker, v1": (f"12:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n", {"container.id": ID}),
    "docker, systemd": (f"0::/system.slice/docker-{ID}.scope\n", {"container.id": ID}),
    "podman": (f"0::/user.slice/user-0.slice/libpod-{ID}.scope\n", {"container.id": ID}),
    "kubernetes, v1": (
        f"11:cpu:/kubepods/burstable/pod{UID}/{ID}\n",
        {"container.id": ID, "k8s.pod.uid": UID},
    ),
    "kubernetes, systemd": (
        f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID.replace('-', '_')}.slice/"
        f"cri-containerd-{ID}.scope\n",
        {"container.id": ID, "k8s.pod.uid": UID},
    ),
    "a static pod": (
        f"11:cpu:/kubepods/burstable/pod{UID.replace('-', '')}/{ID}\n",
        {"container.id": ID, "k8s.pod.uid": UID.replace("-", "")},
    ),
    "ECS": (
        f"9:perf_event:/ecs/{ID[:32]}/{ID}\n",
        {"container.id": ID, "aws.ecs.task.id": ID[:32]},
    ),
    "ECS on Fargate": (
        f"9:perf_event:/ecs/{ID[:32]}/{ID[:32]}-2531612879\n",
        {"container.id": f"{ID[:32]}-2531612879", "aws.ecs.task.id": ID[:32]},
    ),
    "no container": ("0::/user.slice/user-1000.slice/session-3.scope\n", {}),
    "a namespace of its own": ("0::/\n", {}),
    "nonsense": ("\x00\ufffd::::/\n" * 10, {}),
}


class TestContainer:
    @pytest.mark.parametrize("case", CGROUPS)
    def test_the_control_group_names_it(self, case: str) -> None:
        text, expected = CGROUPS[case]
        assert found(files={resource.CGROUP_FILE: text}) == expected

    @pytest.mark.parametrize(
        "root", [f"/var/lib/docker/containers/{ID}/hostname", f"/storage/overlay-containers/{ID}/userdata/hostname"]
    )
    def test_else_the_files_mounted_over_etc_do(self, root: str) -> None:
        """With a namespace of its own for control groups, its path there is only `/`."""
        mounts = f"1 0 0:1 / / rw - overlay overlay rw\n9 1 254:1 {root} /etc/hostname rw - ext4 /dev/vda rw\n"
        files = {resource.CGROUP_FILE: "0::/\n", resource.MOUNTINFO_FILE: mounts}
        assert found(files=files) == {"container.id": ID}

    def test_in_a_pod_these_files_are_the_pause_containers(self) -> None:
        """open-telemetry/opentelemetry-go#3508, open-telemetry/opentelemetry-js#3614."""
        pods = f"/var/lib/kubelet/pods/{UID}"
        mounts = (
            f"8 1 8:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/vda rw\n"
            f"9 1 8:1 {pods}/etc-hosts /etc/hosts rw - ext4 /dev/vda rw\n"
            f"9 1 8:1 {pods}/containers/cart/5e0d7dc8 /dev/termination-log rw - ext4 /dev/vda rw\n"
        )
        assert found(files={resource.MOUNTINFO_FILE: mounts}) == {"k8s.pod.uid": UID, "k8s.container.name": "cart"}


PLATFORMS: dict[str, tuple[dict[str, str], dict[str, Value]]] = {
    "Lambda": (
        {
            "AWS_LAMBDA_FUNCTION_NAME": "cart",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
            "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/cart",
            "AWS_LAMBDA_LOG_STREAM_NAME": "2026/01/01/[1]ab",
            "AWS_REGION": "eu-west-1",
        },
        {
            "cloud.provider": "aws",
            "cloud.platform": "aws_lambda",
            "cloud.region": "eu-west-1",
            "faas.name": "cart",
            "faas.version": "$LATEST",
            "faas.instance": "2026/01/01/[1]ab",
            "faas.max_memory": 128 * 2**20,
            "aws.log.group.names": ["/aws/lambda/cart"],
            "service.name": "cart",
        },
    ),
    "ECS": (
        {
            "ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/x",
            "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
            "AWS_REGION": "eu-west-1",
        },
        {
            "cloud.provider": "aws",
            "cloud.platform": "aws_ecs",
            "cloud.region": "eu-west-1",
            "aws.ecs.launchtype": "fargate",
        },
    ),
    "Cloud Run": (
        {"K_SERVICE": "cart", "K_REVISION": "cart-00001"},
        {
            "cloud.provider": "gcp",
            "cloud.platform": "gcp_cloud_run",
            "faas.name": "cart",
            "faas.version": "cart-00001",
            "service.name": "cart",
        },
    ),
    "Knative": ({"K_SERVICE": "cart", **IN_A_POD}, {}),
    "App Service": (
        {
            "WEBSITE_SITE_NAME": "cart",
            "WEBSITE_OWNER_NAME": "5ub+group-westeuropewebspace",
            "WEBSITE_RESOURCE_GROUP": "group",
            "WEBSITE_SLOT_NAME": "Production",
            "REGION_NAME": "West Europe",
        },
        {
            "cloud.provider": "azure",
            "cloud.platform": "azure.app_service",
            "cloud.region": "West Europe",
            "cloud.resource_id": "/subscriptions/5ub/resourceGroups/group/providers/Microsoft.Web/sites/cart",
            "azure.resource_group.name": "group",
            "deployment.environment.name": "Production",
            "service.name": "cart",
        },
    ),
    "Azure Functions": (
        {"FUNCTIONS_EXTENSION_VERSION": "~4", "WEBSITE_SITE_NAME": "cart"},
        {
            "cloud.provider": "azure",
            "cloud.platform": "azure.functions",
            "faas.name": "cart",
            "service.name": "cart",
        },
    ),
    "Heroku": (
        {
            "HEROKU_APP_ID": "2daa",
            "HEROKU_APP_NAME": "cart",
            "HEROKU_RELEASE_VERSION": "v7",
            "HEROKU_BUILD_COMMIT": "abc",
            "HEROKU_RELEASE_CREATED_AT": "2026-01-01T00:00:00Z",
        },
        {
            "cloud.provider": "heroku",
            "heroku.app.id": "2daa",
            "heroku.release.commit": "abc",
            "heroku.release.creation_timestamp": "2026-01-01T00:00:00Z",
            "service.name": "cart",
            "service.version": "v7",
            "vcs.ref.head.revision": "abc",
        },
    ),
    "Cloud Foundry": (
        {
            "VCAP_APPLICATION": '{"application_id": "1", "application_name": "cart", "limits": {}}',
            "CF_INSTANCE_INDEX": "0",
        },
        {
            "cloudfoundry.app.id": "1",
            "cloudfoundry.app.name": "cart",
            "cloudfoundry.app.instance.id": "0",
            "service.name": "cart",
        },
    ),
    "a broken Cloud Foundry": ({"VCAP_APPLICATION": "[" * 60_000}, {}),
}


class TestPlatforms:
    @pytest.mark.parametrize("case", PLATFORMS)
    def test_a_platform_makes_itself_known(self, case: str) -> None:
        environ, expected = PLATFORMS[case]
        assert found(environ) == expected


def conventional_names() -> Iterator[str]:
    for package in ("opentelemetry.semconv.attributes", "opentelemetry.semconv._incubating.attributes"):
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
            for name, value in vars(importlib.import_module(module.name)).items():
                if name.isupper() and isinstance(value, str):
                    yield value


def test_every_name_is_one_of_the_installed_conventions() -> None:
    platforms = [name for p in resource.PLATFORMS for name in (*p.facts, *p.variables)]
    cases = [name for _, expected in PLATFORMS.values() for name in expected]
    names = {*resource.SOURCES, *resource.IN_A_POD, *platforms, *cases, *resource._CLOUD_FOUNDRY, "aws.ecs.task.id"}
    assert names - set(conventional_names()) == set()


VARIABLES = sorted(
    {v for vs in (*resource.SOURCES.values(), *resource.IN_A_POD.values()) for v in vs}
    | {v for p in resource.PLATFORMS for v in (p.sign, *p.variables.values())}
    | {"VCAP_APPLICATION", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "HOSTNAME"}
    | {resource.POD_SIGN, "WEBSITE_OWNER_NAME", "CONTAINER_IMAGE_TAG", "AWS_LAMBDA_LOG_GROUP_NAME"}
)
FILES = [resource.NAMESPACE_FILE, resource.CGROUP_FILE, resource.MOUNTINFO_FILE]
TEXT = st.text(max_size=60) | st.sampled_from(
    ["https://u:p@h/a/b", "²", "9" * 30, "{}", "null", f"/docker/{ID}", "a/b:c@d"]
)


@given(
    st.dictionaries(st.sampled_from(VARIABLES), TEXT, max_size=12),
    st.dictionaries(st.sampled_from(FILES), TEXT),
)
def test_whatever_the_environment_holds_the_result_can_be_sent(environ: dict[str, str], files: dict[str, str]) -> None:
    context = deployment(environ, files.get, ResourceSettings())
    for value in context.values():
        assert isinstance(value, (str, int, list))
        for text in value if isinstance(value, list) else [value]:
            assert text == 0 or (text and str(text).isprintable())
    encoded = _encode_attributes(Resource(context).attributes)
    assert [pair.key for pair in encoded or []] == list(context)


def test_every_setting_of_the_section_states_its_attribute() -> None:
    said = documentation(ResourceSettings)
    assert list(said) == list(resource.STATED)
    for name, attribute in resource.STATED.items():
        assert said[name] == f"`{attribute}` of the resource."
