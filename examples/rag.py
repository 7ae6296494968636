"""Answering from documents: what is tracked by hand, and what the clients tell, in one trace.

    pip install 'otelweir[openai,dev]'
    pip install openai
    weir dev                                  # in another terminal: shows what arrives
    opentelemetry-instrument python examples/rag.py

Without OPENAI_API_KEY a provider on this machine answers, so it runs offline. The chain has its question and its
answer, the retriever its documents, the two calls their tokens; the root has the cost of both.
"""

import os
from contextlib import ExitStack

import openai

import otelweir
from otelweir.demo.provider import ModelProvider, Reply

DOCUMENTS = {
    "weir": "A weir is a low barrier across a river that holds back the flood and lets the stream through.",
    "lock": "A lock raises and lowers boats between stretches of water of different levels.",
    "sluice": "A sluice is a gate that controls how much water flows.",
}


@otelweir.track(kind="retriever", ignore=["client"])
def find(client: openai.OpenAI, question: str) -> list[dict[str, str]]:
    client.embeddings.create(model="text-embedding-3-small", input=question)  # a real one would compare it
    words = question.lower().replace("?", "").split()
    return [{"id": name, "content": text} for name, text in DOCUMENTS.items() if name in words]


@otelweir.track(kind="chain", ignore=["client"])
def answer(client: openai.OpenAI, question: str) -> str:
    known = "\n".join(document["content"] for document in find(client, question))
    completion = client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "system", "content": f"Answer from this:\n{known}"}, {"role": "user", "content": question}],
    )
    return completion.choices[0].message.content or ""


def main() -> None:
    with ExitStack() as stack:
        if os.environ.get("OPENAI_API_KEY"):
            client = openai.OpenAI()
        else:
            provider = stack.enter_context(ModelProvider([Reply(), Reply("It holds back the flood.")]))
            client = openai.OpenAI(base_url=provider.openai_url, api_key="none")
        with otelweir.context(session="visit-1", user="ada"):
            print(answer(client, "What does a weir do?"))


if __name__ == "__main__":
    main()
