"""The shop's assistant, the demo's second service: `python -m otelweir.demo.assistant --questions FILE ...`.

It answers customers with OpenAI's own client: an agent that looks for articles, asks a language model, calls the tool
that the model wants, and asks again. It logs in the usual way, the questions too. Its functions are tracked; redaction,
cost and the flight recorder are none of its business: the launcher and environment variables bring them.

It reads the questions, a JSON list of strings, from a file, and ends after the last one; with `--until-eof` also when
its standard input ends.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any, Final

import openai

import otelweir
from otelweir.demo.service import configure_logging

log = logging.getLogger("shop.assistant")

MODEL: Final = "gpt-4o-mini"
EMBEDDINGS: Final = "text-embedding-3-small"
ARTICLES: Final = {
    "delivery": "Orders leave our house within two days.",
    "return": "What is not used can be sent back within 30 days.",
    "login": "Keys for our interface are made anew under Settings, Keys.",
    "kettle": "The kettle holds 1.2 litres and is repaired for ten years.",
}
TOOL: Final[Any] = {
    "type": "function",
    "function": {
        "name": "order_status",
        "description": "Where an order is.",
        "parameters": {"type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]},
    },
}


@otelweir.track(kind="retriever", ignore=["client"])
def find(client: openai.OpenAI, question: str) -> list[dict[str, object]]:
    client.embeddings.create(model=EMBEDDINGS, input=question)
    words = question.lower()
    found: list[dict[str, object]] = []
    for name, text in ARTICLES.items():
        score = float(name in words)
        log.debug("article %s scores %.2f", name, score)
        if score:
            found.append({"id": name, "content": text, "score": score})
    return found


@otelweir.track(kind="tool")
def order_status(order: int) -> str:
    """Where an order is."""
    log.debug("looking up order %d", order)
    if order % 100 == 13:
        raise LookupError(f"order {order} is in no warehouse")
    return "on its way"


@otelweir.track(kind="agent", ignore=["client"])
def answer(client: openai.OpenAI, question: str) -> str:
    log.info("a customer asks: %s", question)
    known = "\n".join(str(article["content"]) for article in find(client, question))
    messages: list[Any] = [
        {"role": "system", "content": f"You help the customers of a tea shop. What you know:\n{known}"},
        {"role": "user", "content": question},
    ]
    log.debug("asking %s with %d messages", MODEL, len(messages))
    said = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL]).choices[0].message
    if said.tool_calls:
        messages.append(said)
        for call in said.tool_calls:
            assert call.type == "function"
            log.debug("the model calls %s with %s", call.function.name, call.function.arguments)
            try:
                found = order_status(**json.loads(call.function.arguments))
            except LookupError:
                log.exception("%s failed", call.function.name)
                found = "not known"
            messages.append({"role": "tool", "tool_call_id": call.id, "content": found})
        said = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL]).choices[0].message
    log.debug("answered in %d words", len((said.content or "").split()))
    return said.content or ""


def serve(questions: list[str]) -> None:
    client = openai.OpenAI()  # where it is and its key are in OPENAI_BASE_URL and OPENAI_API_KEY
    for number, question in enumerate(questions):
        with otelweir.context(session=f"visit-{number // 4}", user=f"customer-{number // 4}"):
            answer(client, question)


def main() -> None:
    parser = argparse.ArgumentParser(description="A small shop's assistant.")
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--log-file", type=Path, required=True)
    parser.add_argument("--until-eof", action="store_true", help="end when the standard input does")
    options = parser.parse_args()
    configure_logging(options.log_file)
    if options.until_eof:
        threading.Thread(target=end_with_input, daemon=True).start()
    serve(json.loads(options.questions.read_text()))


def end_with_input() -> None:
    # Not sys.stdin: its lock would be held when the interpreter ends.
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
