"""A chat with OpenAI, streamed.

    pip install 'otelweir[openai,dev]'
    pip install openai
    weir dev                                  # in another terminal: shows what arrives
    opentelemetry-instrument python examples/openai_chat.py

Without OPENAI_API_KEY a provider on this machine answers, so it runs offline. The span of the call has its tokens, its
cost and the time to the first chunk; OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=span_only adds the messages.
"""

import os
from contextlib import ExitStack

import openai
from opentelemetry import trace

from otelweir.demo.provider import ModelProvider, Reply

ANSWER = "A weir holds back the flood and lets the stream through."


def main() -> None:
    with ExitStack() as stack:
        if os.environ.get("OPENAI_API_KEY"):
            client = openai.OpenAI()
        else:
            provider = stack.enter_context(ModelProvider([Reply(ANSWER)]))
            client = openai.OpenAI(base_url=provider.openai_url, api_key="none")
        with trace.get_tracer("chat").start_as_current_span("question"):
            stream = client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[{"role": "user", "content": "What is a weir?"}],
                stream=True,
                stream_options={"include_usage": True},  # without it, OpenAI does not say how many tokens a stream took
            )
            for chunk in stream:
                if chunk.choices:
                    print(chunk.choices[0].delta.content or "", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
