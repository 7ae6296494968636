"""`OTEL_TRACES_SAMPLER_ARG` of the sampler `weir`: pairs such as `rate=0.1,per_second=50`, a rate, or a policy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, cast

from otelweir import errors
from otelweir.pipeline.sample.spans.rules import Remote, TraceRules
from otelweir.variables import Form, number, one_of

WORDS: Final = (
    "pairs such as rate=0.1,per_second=50,remote=honour, with a rate from 0 to 1; a rate alone; or the path of a policy"
)
"""What is allowed."""


def _rate(value: object) -> float:
    rate = number(least=0).read(value)
    if rate > 1:
        raise ValueError
    return rate


FORMS: Final[Mapping[str, Form[object]]] = {
    "rate": Form("a number from 0 to 1", _rate),
    "per_second": cast("Form[object]", number(above=0)),
    "remote": cast("Form[object]", one_of("honour", "ignore")),
}
"""The pairs."""


def rules_of(argument: str) -> TraceRules:
    """What an argument asks for; empty for every trace.

    Raises:
        ValueError: What is wrong with it, in words.
    """
    argument = argument.strip()
    if not argument:
        return TraceRules()
    if _is_path(argument):
        return _from_file(argument)
    if "=" not in argument:
        argument = f"rate={argument}"
    found: dict[str, object] = {}
    for part in filter(None, (part.strip() for part in argument.split(","))):
        name, sign, value = part.partition("=")
        name = name.strip().lower()
        if not sign:
            raise ValueError(f"{part!r} has no '='")
        if name not in FORMS:
            raise ValueError(f"{name!r} is not one of {', '.join(FORMS)}")
        if name in found:
            raise ValueError(f"{name} is given twice")
        try:
            found[name] = FORMS[name].read(value.strip())
        except (ValueError, TypeError):
            raise ValueError(f"{name} is not {FORMS[name].words}") from None
    return TraceRules(
        rate=cast("float", found.get("rate", 1.0)),
        per_second=cast("float | None", found.get("per_second")),
        remote=cast("Remote", found.get("remote", "honour")),
    )


def policy_of(argument: str, policy_file: str) -> str | None:
    """The path of the policy that an argument names; where it is empty, of the policy file; None for no policy.

    Args:
        argument: Of the sampler.
        policy_file: What `WEIR_POLICY_FILE` says; empty for none.
    """
    argument = argument.strip()
    path = argument if argument and _is_path(argument) else "" if argument else policy_file
    return os.path.expanduser(path) if path else None  # noqa: PTH111 - the path is shown as the user wrote it


def flaw_of(argument: str) -> str | None:
    """What is allowed, and why this is not, in words; None when it can be used."""
    try:
        rules_of(argument)
    except ValueError as error:
        return f"{WORDS} ({error})"
    return None


def _is_path(argument: str) -> bool:
    if argument.lower().endswith((".yaml", ".yml", ".json")) or argument.startswith(("/", "./", "../", "~")):
        return True
    return "=" not in argument and (os.sep in argument or not _is_number(argument))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _from_file(path: str) -> TraceRules:
    # Only here: it brings pydantic, which nobody without a policy need wait for.
    from otelweir.pipeline.sample.logs.document import MAX_BYTES
    from otelweir.pipeline.sample.logs.policy import parse

    path = os.path.expanduser(path)  # noqa: PTH111 - the path is shown as the user wrote it
    try:
        # Without O_NONBLOCK, opening a pipe would wait for somebody to write into it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            policy = parse(file.read(MAX_BYTES + 1), path)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except errors.PolicyError as error:
        raise ValueError(error.detail.replace("\n", "; ")) from None
    return policy.trace_rules(os.path.basename(path))  # noqa: PTH119
