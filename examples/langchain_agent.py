"""A LangChain agent with a tool.

    pip install 'otelweir[langchain,dev]'
    pip install langchain langchain-openai
    weir dev                                  # in another terminal: shows what arrives
    opentelemetry-instrument python examples/langchain_agent.py

Without OPENAI_API_KEY a provider on this machine answers, so it runs offline. The trace is the agent with its two calls
of the model and its tool between them; LangChain over OpenAI is one span a call, and costs once.
"""

import os
from contextlib import ExitStack

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from otelweir.demo.provider import ModelProvider, Reply, ToolCall

REPLIES = [
    Reply(tools=(ToolCall("water_level", {"river": "Isar"}),)),
    Reply("The Isar stands at 132 cm: the weir can stay open."),
]


def water_level(river: str) -> str:
    """The level of a river, in centimetres."""
    return {"Isar": "132"}.get(river, "unknown")


def main() -> None:
    with ExitStack() as stack:
        if os.environ.get("OPENAI_API_KEY"):
            model = ChatOpenAI(model="gpt-4o-mini")
        else:
            provider = stack.enter_context(ModelProvider(REPLIES))
            model = ChatOpenAI(model="gpt-4o-mini", base_url=provider.openai_url, api_key=SecretStr("none"))
        agent = create_agent(model, tools=[water_level], name="lock-keeper")
        answer = agent.invoke({"messages": [HumanMessage("Can the weir at the Isar stay open?")]})
        print(answer["messages"][-1].content)


if __name__ == "__main__":
    main()
