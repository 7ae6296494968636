"""A chat with Anthropic that calls a tool; only this client is traced, and nothing is patched.

    pip install 'otelweir[anthropic,dev]'
    pip install anthropic
    weir dev                                  # in another terminal: shows what arrives
    python examples/anthropic_chat.py

Without ANTHROPIC_API_KEY a provider on this machine answers, so it runs offline. The root of the trace has the cost of
both calls; what came from the cache costs a tenth.
"""

import os
from contextlib import ExitStack

import anthropic
from anthropic.types import MessageParam, ToolParam, ToolResultBlockParam
from opentelemetry import trace

import otelweir
from otelweir.demo.provider import ModelProvider, Reply, ToolCall

# What was asked is put into the provider's cache by the first call, and comes from there at the second.
FIRST = {"input_tokens": 40, "output_tokens": 30, "cache_creation_input_tokens": 1500, "cache_read_input_tokens": 0}
SECOND = {"input_tokens": 90, "output_tokens": 15, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 1500}
REPLIES = [
    Reply("Let me look.", tools=(ToolCall("water_level", {"river": "Isar"}),), usage=FIRST),
    Reply("The Isar stands at 132 cm: the weir can stay open.", usage=SECOND),
]
TOOL: ToolParam = {
    "cache_control": {"type": "ephemeral"},
    "name": "water_level",
    "description": "The level of a river, in centimetres.",
    "input_schema": {"type": "object", "properties": {"river": {"type": "string"}}, "required": ["river"]},
}


def main() -> None:
    pipeline = otelweir.configure(service_name="anthropic-chat")
    with ExitStack() as stack:
        if os.environ.get("ANTHROPIC_API_KEY"):
            client = anthropic.Anthropic()
        else:
            provider = stack.enter_context(ModelProvider(REPLIES))
            client = anthropic.Anthropic(base_url=provider.url, api_key="none")
        client = otelweir.track_anthropic(client)
        with trace.get_tracer("chat").start_as_current_span("question"):
            messages: list[MessageParam] = [{"role": "user", "content": "Can the weir at the Isar stay open?"}]
            answer = client.messages.create(model="claude-haiku-4-5", max_tokens=300, messages=messages, tools=[TOOL])
            messages.append({"role": "assistant", "content": answer.content})
            results: list[ToolResultBlockParam] = [
                {"type": "tool_result", "tool_use_id": block.id, "content": "132"}
                for block in answer.content
                if block.type == "tool_use"
            ]
            messages.append({"role": "user", "content": results})
            with client.messages.stream(
                model="claude-haiku-4-5", max_tokens=300, messages=messages, tools=[TOOL]
            ) as stream:
                for text in stream.text_stream:
                    print(text, end="", flush=True)
        print()
    pipeline.shutdown()


if __name__ == "__main__":
    main()
