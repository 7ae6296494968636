"""Which of several instrumentations of one library is used: their entry points have the same names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

Family = Literal["opentelemetry", "openllmetry", "openinference", "other"]

_ORDER: Final[tuple[Family, ...]] = ("opentelemetry", "openllmetry", "openinference", "other")
_PREFIX: Final = "opentelemetry-instrumentation-"

OPENLLMETRY: Final = frozenset(
    f"{_PREFIX}{library}"
    for library in (
        "agno",
        "alephalpha",
        "anthropic",
        "bedrock",
        "chromadb",
        "cohere",
        "crewai",
        "google-generativeai",
        "groq",
        "haystack",
        "lancedb",
        "langchain",
        "llamaindex",
        "marqo",
        "mcp",
        "milvus",
        "mistralai",
        "ollama",
        "openai",
        "openai-agents",
        "pinecone",
        "qdrant",
        "replicate",
        "sagemaker",
        "together",
        "transformers",
        "vertexai",
        "voyageai",
        "watsonx",
        "weaviate",
        "writer",
    )
)
"""The packages of OpenLLMetry, which are called as if they were OpenTelemetry's."""

GENAI: Final[Mapping[str, str]] = {
    "agno": f"{_PREFIX}genai-agno",
    "anthropic": "otelweir[anthropic]",
    "dspy": f"{_PREFIX}genai-dspy",
    "google-genai": f"{_PREFIX}google-genai",
    "langchain-core": "otelweir[langchain]",
    "llama-index-core": f"{_PREFIX}genai-llama-index",
    "openai": "otelweir[openai]",
    "openai-agents": f"{_PREFIX}genai-openai-agents",
    "portkey-ai": f"{_PREFIX}genai-portkey",
    "qwen-agent": f"{_PREFIX}genai-qwen-agent",
    "smolagents": f"{_PREFIX}genai-smolagents",
}
"""By the package of a client or framework, what to install so that OpenTelemetry's own instrumentation is there.

The launcher finds whatever is installed, in this table or not.
"""


def instruments(library: str, packages: Iterable[str]) -> bool:
    """Whether one of the packages is an instrumentation for a client or framework of `GENAI`."""
    name = {"langchain-core": "langchain", "llama-index-core": "llama-index", "portkey-ai": "portkey"}.get(
        library, library
    )
    known = {
        f"{_PREFIX}genai-{name}",
        f"{_PREFIX}{name}-v2",
        f"{_PREFIX}{name}",
        f"{_PREFIX}{name.replace('-', '')}",
        f"openinference-instrumentation-{name}",
    }
    return not known.isdisjoint(packages)


def family(package: str) -> Family:
    """Whose package it is, by its name in lower case with hyphens."""
    if package.startswith("openinference-"):
        return "openinference"
    if package in OPENLLMETRY:
        return "openllmetry"
    return "opentelemetry" if package.startswith("opentelemetry-") else "other"


def preferred(packages: Iterable[str], vendor: str) -> str:
    """The package to use.

    Args:
        packages: Those that instrument one library; at least one.
        vendor: Whose is wanted, if it is among them.
    """

    def rank(package: str) -> tuple[bool, int, bool, str]:
        whose = family(package)
        # Of OpenTelemetry's own the newest generation.
        older = not package.startswith(f"{_PREFIX}genai-")
        return whose != vendor, _ORDER.index(whose), older, package

    return min(packages, key=rank)
