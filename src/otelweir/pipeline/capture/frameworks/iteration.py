"""Request context while a response is streamed, after the code that began it has returned."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import TypeVar

from otelweir.pipeline.capture import context

T = TypeVar("T")


def within(source: context.Source, parts: Iterable[T]) -> Iterator[T]:
    """The same parts, each made in the context of the request."""
    iterator = iter(parts)
    try:
        while True:
            before = context.follow(source)
            try:
                part = next(iterator)
            except StopIteration:
                return
            finally:
                context.follow(before)
            yield part
    finally:
        before = context.follow(source)
        try:
            if callable(close := getattr(iterator, "close", None)):
                close()
        finally:
            context.follow(before)


async def within_async(source: context.Source, parts: AsyncIterable[T]) -> AsyncIterator[T]:
    """The same parts, each made in the context of the request."""
    iterator = aiter(parts)
    try:
        while True:
            before = context.follow(source)
            try:
                part = await anext(iterator)
            except StopAsyncIteration:
                return
            finally:
                context.follow(before)
            yield part
    finally:
        before = context.follow(source)
        try:
            if callable(close := getattr(iterator, "aclose", None)):
                await close()
        finally:
            context.follow(before)
