"""What calls cost is counted whether their spans are sampled or not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import openai
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, DEFAULT_OFF, Sampler, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
from tests.genai.conftest import Sdk

import otelweir
from otelweir.demo.provider import ModelProvider, Reply
from otelweir.pipeline.capture.genai.otel import GenAISampler
from otelweir.testing import Backend

LAUNCHER = str(Path(sys.executable).with_name("opentelemetry-instrument"))
USAGE = {"prompt_tokens": 2000, "completion_tokens": 500, "total_tokens": 2500}
COST = (2000 * 0.15 + 500 * 0.60) / 1e6


def ask(provider: ModelProvider, sdk: Sdk) -> None:
    client = otelweir.track_openai(openai.OpenAI(base_url=provider.openai_url, api_key="none"), **sdk.providers)
    client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize("inner", [ALWAYS_OFF, DEFAULT_OFF, TraceIdRatioBased(0.0)])
def test_a_call_that_is_not_sampled_costs_what_it_costs(inner: Sampler) -> None:
    sdk = Sdk(sampler=GenAISampler(inner))
    with ModelProvider([Reply("Hi", usage=USAGE)]) as provider, sdk.tracer.start_as_current_span("request") as root:
        assert not root.is_recording()
        ask(provider, sdk)
    assert sdk.spans == []
    call = ("openai", "gpt-4o-mini", "chat")
    assert sdk.metric("weir.genai.cost") == {call: pytest.approx(COST)}
    assert sdk.metric("gen_ai.client.token.usage") == {call: 2500}


def test_below_a_call_that_is_not_sampled_nothing_is() -> None:
    tracer = TracerProvider(sampler=GenAISampler(DEFAULT_OFF), shutdown_on_exit=False).get_tracer("t")
    with tracer.start_as_current_span("chat", attributes={"gen_ai.operation.name": "chat"}) as call:
        assert call.is_recording()
        assert not call.get_span_context().trace_flags.sampled
        assert not tracer.start_span("below").is_recording()


def test_the_default_is_the_sdks() -> None:
    tracer = TracerProvider(sampler=GenAISampler(), shutdown_on_exit=False).get_tracer("t")
    assert tracer.start_span("root").is_recording()
    left_out = NonRecordingSpan(SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(0)))
    assert not tracer.start_span("root", context=set_span_in_context(left_out)).is_recording()


@pytest.mark.parametrize("how", ["sampled out", "no exporter of spans"])
def test_under_the_launcher(how: str, tmp_path: Path) -> None:
    variables = {
        "sampled out": {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
        "no exporter of spans": {"OTEL_TRACES_EXPORTER": "none"},
    }
    program = tmp_path / "app.py"
    program.write_text(
        "import openai\n"
        "from otelweir.demo.provider import ModelProvider, Reply\n"
        f"with ModelProvider([Reply('Hi', usage={USAGE})]) as provider:\n"
        "    client = openai.OpenAI(base_url=provider.openai_url, api_key='none')\n"
        "    client.chat.completions.create(model='gpt-4o-mini', messages=[{'role': 'user', 'content': 'hi'}])\n"
    )
    with Backend() as backend:
        done = subprocess.run(
            [LAUNCHER, sys.executable, str(program)],
            env={
                "PATH": "/usr/bin:/bin",
                "XDG_STATE_HOME": str(tmp_path),
                "PYTHONPATH": str(Path(otelweir.__file__).parents[1]),
                "OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoint,
                **variables[how],
            },
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert (done.returncode, done.stderr, backend.spans) == (0, "", [])
    (cost,) = [metric for metric in backend.metrics if metric.name == "weir.genai.cost"]
    assert [point.value for point in cost.points] == [pytest.approx(COST)]
