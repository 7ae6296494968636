"""Large content goes to a storage of the user's own: whole, without its secrets, and the span says where."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import openai
import pytest
from opentelemetry.util.genai.types import InputMessage, TextPart, ToolCallRequestPart
from tests.genai.conftest import Sdk

import otelweir
from otelweir.demo.provider import ModelProvider, Reply
from otelweir.distro import redaction
from otelweir.distro.completions import RedactedCompletions
from otelweir.pipeline.redact.redactor import Redactor
from otelweir.testing import Backend

LAUNCHER = str(Path(sys.executable).with_name("opentelemetry-instrument"))
LONG = "word " * 100_000
PROGRAM = f"""
import openai
from otelweir.demo.provider import ModelProvider, Reply
with ModelProvider([Reply("Hi ada@example.org")]) as provider:
    client = openai.OpenAI(base_url=provider.openai_url, api_key="none")
    said = {LONG!r} + "my mail is ada@example.org"
    client.chat.completions.create(model="gpt-4o-mini", messages=[{{"role": "user", "content": said}}])
"""


def uploaded(folder: Path, name: str) -> str:
    """What was uploaded under a name, as soon as it is there: uploads run on a thread."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        for file in folder.rglob(f"*{name}*"):
            if text := file.read_text():
                return text
        time.sleep(0.05)
    raise AssertionError(list(folder.rglob("*")))


def test_under_the_launcher(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    program = tmp_path / "app.py"
    program.write_text(PROGRAM)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "WEIR_", "OPENAI_"))}
    with Backend() as backend:
        done = subprocess.run(
            [LAUNCHER, sys.executable, str(program)],
            env=clean
            | {
                "OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoint,
                "OTEL_INSTRUMENTATION_GENAI_COMPLETION_HOOK": "upload",
                "OTEL_INSTRUMENTATION_GENAI_UPLOAD_BASE_PATH": str(tmp_path / "prompts"),
            },
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    (call,) = backend.spans
    assert "gen_ai.input.messages" not in call.attributes
    for name, least in (("input", len(LONG)), ("output", 10)):
        text = Path(str(call.attributes[f"gen_ai.{name}.messages_ref"]).removeprefix("file://")).read_text()
        assert len(text) > least
        assert "[redacted:email]" in text
        assert "ada@example.org" not in text


def test_of_one_client(tmp_path: Path, sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_COMPLETION_HOOK", "upload")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_UPLOAD_BASE_PATH", str(tmp_path))
    monkeypatch.setattr(redaction, "_in_force", [])
    with ModelProvider([Reply("Hi ada@example.org")]) as provider:
        client = otelweir.track_openai(openai.OpenAI(base_url=provider.openai_url, api_key="none"), **sdk.providers)
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}])
    text = uploaded(tmp_path, "outputs")
    assert "[redacted:email]" in text
    assert "ada@example.org" not in text


class Kept:
    """A hook that keeps what it gets."""

    def __init__(self) -> None:
        self.given: list[dict[str, Any]] = []

    def on_completion(self, **given: Any) -> None:
        self.given.append(given)


def test_messages_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_in_force", [Redactor()])
    kept = Kept()
    call = ToolCallRequestPart(arguments={"password": "hunter2", "city": "Oslo"}, name="book", id="c1")
    message = InputMessage(role="user", parts=[TextPart("I am ada@example.org"), call])
    RedactedCompletions(kept).on_completion(inputs=[message], outputs=[], system_instruction=[], span=None)
    ((sent,),) = [given["inputs"] for given in kept.given]
    assert sent == InputMessage(
        role="user",
        parts=[
            TextPart("I am [redacted:email]"),
            ToolCallRequestPart(arguments={"password": "[redacted:name]", "city": "Oslo"}, name="book", id="c1"),
        ],
    )
    assert call.arguments["password"] == "hunter2", "the application's own stay as they are"


def test_nothing_is_uploaded_that_could_not_be_looked_at(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redaction, "_in_force", [object()])
    kept = Kept()
    RedactedCompletions(kept).on_completion(inputs=[InputMessage("user", [TextPart("hi")])], outputs=[])
    assert kept.given == []
    assert "nothing is uploaded" in caplog.text


def test_all_of_it_is_uploaded_where_redaction_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_in_force", [])
    monkeypatch.setenv("WEIR_REDACT", "false")
    kept = Kept()
    message = InputMessage("user", [TextPart("I am ada@example.org")])
    RedactedCompletions(kept).on_completion(inputs=[message], outputs=[])
    assert kept.given == [{"inputs": [message], "outputs": []}]
