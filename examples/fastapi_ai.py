"""A FastAPI service that answers with a language model, and streams.

    pip install 'otelweir[fastapi,openai,dev]'
    pip install openai
    weir dev                                  # in another terminal: shows what arrives
    uvicorn --app-dir examples fastapi_ai:app
    curl -N -H 'X-Session: visit-1' -H 'X-User: ada' 'http://127.0.0.1:8000/answers?question=What+is+a+weir'

Without OPENAI_API_KEY a provider on this machine answers, so it runs offline. The trace is the request, the chain with
its question and its whole answer, and the call of the model with its tokens, its cost and the time to the first chunk;
each span and log record has the session and the user. OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=span_only adds
the messages.
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Annotated

import openai
from fastapi import FastAPI, Header, Request
from fastapi.responses import StreamingResponse

import otelweir
from otelweir.demo.provider import Asked, ModelProvider, Reply
from otelweir.integrations import fastapi as weir

log = logging.getLogger("assistant")
logging.basicConfig(level=logging.INFO)


def stand_in(asked: Asked) -> Reply:
    return Reply("A weir holds back the flood and lets the stream through.")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    with ExitStack() as stack:
        if os.environ.get("OPENAI_API_KEY"):
            client = openai.AsyncOpenAI()
        else:
            provider = stack.enter_context(ModelProvider(stand_in))
            client = openai.AsyncOpenAI(base_url=provider.openai_url, api_key="none")
        app.state.client = otelweir.track_openai(client)  # only this one; under the launcher all are
        yield


app = FastAPI(lifespan=lifespan)
weir.init(app, service_name="assistant")


@otelweir.track(kind="chain", ignore=["client"])
async def answer(client: openai.AsyncOpenAI, question: str) -> AsyncIterator[str]:
    stream = await client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": question}],
        stream=True,
        stream_options={"include_usage": True},  # without it, OpenAI does not say how many tokens a stream took
    )
    async for chunk in stream:
        if chunk.choices and (text := chunk.choices[0].delta.content):
            yield text
    log.info("answered a question of %d characters", len(question))


@app.get("/answers")
async def answers(
    request: Request, question: str, x_session: Annotated[str, Header()], x_user: Annotated[str, Header()]
) -> StreamingResponse:
    otelweir.update_trace(session=x_session, user=x_user)  # the request's own span, which has begun already
    with otelweir.context(session=x_session, user=x_user):
        # Tracked streams belong to where they are made, so the context reaches all of it, after the return too.
        return StreamingResponse(answer(request.app.state.client, question), media_type="text/plain")
