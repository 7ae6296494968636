"""The real instrumentations of several vendors in one environment: one is used, and a call is one model's span."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.backends.conftest import HOME

from otelweir.testing import Backend

PROGRAM = """
from otelweir.demo.provider import ModelProvider, Reply
import anthropic, openai
from langchain_openai import ChatOpenAI

used = {"prompt_tokens": 2000, "completion_tokens": 500, "total_tokens": 2500}
told = {"input_tokens": 1000, "output_tokens": 500, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
messages = [{"role": "user", "content": "hi"}]
with ModelProvider([Reply("Hi", usage=used), Reply("Hi", usage=used), Reply("Hi", usage=told)]) as provider:
    openai.OpenAI(base_url=provider.openai_url, api_key="none").chat.completions.create(
        model="gpt-4o-mini", messages=messages)
    ChatOpenAI(model="gpt-4o-mini", base_url=provider.openai_url, api_key="none").invoke("hi")
    anthropic.Anthropic(base_url=provider.url, api_key="none").messages.create(
        model="claude-haiku-4-5", max_tokens=99, messages=messages)
"""
OPENAI_COST = (2000 * 0.15 + 500 * 0.60) / 1e6
ANTHROPIC_COST = (1000 * 1 + 500 * 5) / 1e6


def is_a_models(attributes: dict[str, Any]) -> bool:
    return attributes.get("gen_ai.operation.name") == "chat" or attributes.get("openinference.span.kind") == "LLM"


@pytest.mark.parametrize("vendor", ["", "opentelemetry", "openllmetry", "openinference"])
def test_a_call_is_one_models_span_and_costs_once(vendor: str, tmp_path: Path) -> None:
    programs = Path(HOME).expanduser().resolve() / "vendors" / "bin"
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "WEIR_", "OPENAI_", "ANTHROPIC_", "PYTHON"))
    }
    with Backend() as backend:
        done = subprocess.run(
            [str(programs / "opentelemetry-instrument"), str(programs / "python"), "-c", PROGRAM],
            env={
                **clean,
                "XDG_STATE_HOME": str(tmp_path),
                "OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoint,
                "TRACELOOP_TELEMETRY": "false",
                **({"WEIR_GENAI_VENDOR": vendor} if vendor else {}),
            },
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    models = [span for span in backend.spans if is_a_models(span.attributes)]
    costs = sorted(span.attributes["weir.cost.amount"] for span in models)
    assert costs == pytest.approx([OPENAI_COST, OPENAI_COST, ANTHROPIC_COST]), [span.name for span in backend.spans]
    counted = [point.value for metric in backend.metrics if metric.name == "weir.genai.cost" for point in metric.points]
    assert sum(counted) == pytest.approx(sum(costs))
    for library in ("openai", "anthropic", "langchain"):
        used = f"{library} is instrumented by opentelemetry.instrumentation.genai.{library}, and not by"
        assert done.stderr.count(f"WEIR-GENAI-004: {used}") == (0 if vendor else 2), "the others are named"
