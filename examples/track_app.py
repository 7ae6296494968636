"""An answer from documents, tracked: an agent, a retriever, a tool, a streamed chat, a score. Needs no network.

Each function is a span with its input and output; the session and the user are on all of them, and on the logs. The
model here is a stand-in: put a client in its place, and its own span appears below.

pip install 'otelweir[dev]'
weir dev                                  # in another terminal: shows what arrives
opentelemetry-instrument python examples/track_app.py
"""

import asyncio
import logging
from collections.abc import AsyncIterator

import otelweir

log = logging.getLogger("library")

DOCUMENTS = [
    {"id": "weir", "text": "A weir holds back the flood and lets the stream through.", "words": {"weir", "flood"}},
    {"id": "tea", "text": "Tea is drunk from cups.", "words": {"tea", "cups"}},
]


@otelweir.track(kind="retriever")
def find(query: str) -> list[dict[str, object]]:
    words = {word.strip("?").lower() for word in query.split()}
    scores = [(document, len(words & set(document["words"]))) for document in DOCUMENTS]
    return [{"id": document["id"], "score": score, "text": document["text"]} for document, score in scores if score]


@otelweir.track(kind="tool", ignore=["key"])
def count_words(text: str, key: str = "not captured") -> int:
    """How many words a text has."""
    return len(text.split())


@otelweir.track(kind="llm")
async def chat(messages: list[dict[str, str]]) -> AsyncIterator[str]:
    for word in messages[-1]["content"].split():
        await asyncio.sleep(0.001)
        yield word + " "


@otelweir.track(kind="agent", tags=["example"])
async def answer(question: str) -> str:
    found = find(question)
    text = " ".join(str(document["text"]) for document in found) or "Nobody knows."
    words = [word async for word in chat([{"role": "user", "content": text}])]
    said = "".join(words).strip()
    log.info("answered with %s words", count_words(said))
    otelweir.current_span().score("grounded", float(bool(found)), label="pass" if found else "fail")
    return said


async def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with otelweir.context(session="visit-1", user="ada", metadata={"plan": "pro"}):
        for question in ("What does a weir do?", "Who drinks from cups?"):
            with otelweir.trace("question"):
                print(await answer(question))


if __name__ == "__main__":
    handle = otelweir.configure(service_name="library")  # under the launcher, the one that is there
    asyncio.run(main())
    handle.shutdown()
