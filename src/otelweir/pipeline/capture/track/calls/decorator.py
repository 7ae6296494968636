"""`track`: functions, methods and classes whose calls become spans.

Whatever the function is, it stays: a proxy answers `inspect` as the function does, pickles as it does, and gives the
same kinds of coroutines and generators. These are stepped through: the span's context is current while a step runs, and
what was current before is current again before anybody else runs.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import types
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Generator, Iterable, Mapping
from typing import Any, Final, Literal, TypeVar, overload

import wrapt

from otelweir import errors
from otelweir.pipeline.capture.track.calls.arguments import Arguments
from otelweir.pipeline.capture.track.calls.otel import Run, StreamRun, Tracked, begin, created_in
from otelweir.pipeline.capture.track.kinds import Kind
from otelweir.pipeline.capture.track.otel import known
from otelweir.pipeline.capture.track.scoped.otel import Context, attach, get_current

F = TypeVar("F")


@overload
def track(target: F, /) -> F: ...


@overload
def track(
    *,
    name: str | None = None,
    kind: Kind | Literal["plain"] | None = None,
    capture_input: bool | Callable[[dict[str, Any]], object] = True,
    capture_output: bool | Callable[[Any], object] = True,
    ignore: Collection[str] = (),
    tags: Iterable[object] | str | None = None,
    metadata: Mapping[str, object] | None = None,
    sample: float | None = None,
    reduce: Callable[[list[Any]], object] | None = None,
) -> Callable[[F], F]: ...


def track(target: Any = None, /, **options: Any) -> Any:
    """Make each call of a function a span, with its input and output.

    Bare or with arguments, on functions, coroutines, generators, async generators, methods of every sort, properties,
    callable objects, and classes: of a class, its own public methods and `__call__`.

    Args:
        target: What to track.
        name: The name of the spans, and of the tool or agent; None for the function's. Of a class, what stands before
            its methods' names.
        kind: llm, tool, agent, chain, retriever, embedding or evaluator; None for a plain function.
        capture_input: Whether the arguments are captured; a function makes something else of them, a dictionary by
            parameter name.
        capture_output: Whether the result is captured; a function makes something else of it.
        ignore: Parameters that are not captured.
        tags: `weir.tags` of the spans.
        metadata: `weir.metadata.*` of the spans.
        sample: Share of the calls that are tracked, from 0 to 1; what is below the others is not recorded either.
        reduce: Makes one output of a stream's parts, of which it gets the first 10,000.

    Raises:
        ConfigError: An argument cannot be used.
    """
    checked = _checked(**options)
    if target is None:
        return functools.partial(_tracked, options=checked)
    return _tracked(target, checked)


def _checked(
    name: str | None = None,
    kind: Kind | Literal["plain"] | None = None,
    capture_input: bool | Callable[[dict[str, Any]], object] = True,
    capture_output: bool | Callable[[Any], object] = True,
    ignore: Collection[str] = (),
    tags: Iterable[object] | str | None = None,
    metadata: Mapping[str, object] | None = None,
    sample: float | None = None,
    reduce: Callable[[list[Any]], object] | None = None,
) -> dict[str, Any]:
    if name is not None and not isinstance(name, str):
        raise errors.ConfigError(errors.BAD_ARGUMENT, f"name={name!r} is no text")
    if sample is not None and not 0 <= sample <= 1:
        raise errors.ConfigError(errors.BAD_ARGUMENT, f"sample={sample!r} is not a number from 0 to 1")
    for argument, function in (("capture_input", capture_input), ("capture_output", capture_output)):
        if not isinstance(function, bool) and not callable(function):
            raise errors.ConfigError(errors.BAD_ARGUMENT, f"{argument}={function!r} is neither a bool nor a function")
    if reduce is not None and not callable(reduce):
        raise errors.ConfigError(errors.BAD_ARGUMENT, f"reduce={reduce!r} is not a function")
    return {
        "name": name,
        "kind": known(kind),
        "capture_input": capture_input,
        "capture_output": capture_output,
        "ignore": (ignore,) if isinstance(ignore, str) else tuple(ignore),
        "tags": tags if tags is None or isinstance(tags, str) else tuple(tags),
        "metadata": metadata,
        "sample": None if sample is None else float(sample),
        "reduce": reduce,
    }


def _tracked(target: Any, options: Mapping[str, Any]) -> Any:
    if isinstance(target, (TrackedFunction, _Bound)):
        return target
    if isinstance(target, type):
        return _tracked_class(target, options)
    if isinstance(target, property):
        # Of the same class: subclasses of `property` have their reasons.
        get, put, remove = (None if one is None else _tracked(one, options) for one in (target.fget, target.fset, None))
        return type(target)(get, put, target.fdel if remove is None else remove, target.__doc__)
    if isinstance(target, functools.cached_property):
        found = type(target)(_tracked(target.func, options))
        if target.attrname is not None:
            found.__set_name__(object, target.attrname)
        return found
    if isinstance(target, functools.partialmethod):
        return functools.partialmethod(_tracked(target.func, options), *target.args, **target.keywords)
    function = target
    if isinstance(target, (classmethod, staticmethod)):
        function = target.__func__
    elif isinstance(target, functools.singledispatchmethod):
        function = target.func
    if not callable(function):
        raise errors.ConfigError(errors.BAD_ARGUMENT, f"{type(target).__name__} cannot be called")
    if isinstance(function, TrackedFunction):
        return target
    given = dict(options)
    ignore = given.pop("ignore")
    name = given.pop("name") or _name(function)
    about = (inspect.getdoc(function) or "").partition("\n")[0][:256] if given["kind"] in ("tool", "agent") else None
    return TrackedFunction(
        target, _Calls(Tracked(name, Arguments(function, ignore), about=about, **given), function).call
    )


def _tracked_class(target: type, options: Mapping[str, Any]) -> type:
    prefix = options["name"] or target.__name__
    for name, member in list(vars(target).items()):
        if name.startswith("_") and name != "__call__":
            continue
        if isinstance(member, (types.FunctionType, classmethod, staticmethod)):
            setattr(target, name, _tracked(member, {**options, "name": f"{prefix}.{name}"}))
    return target


def _name(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", None)
    if type(name) is not str:
        name = type(function).__qualname__
    return name.rpartition("<locals>.")[2]


class _Calls:
    """What happens when a tracked function is called: wrapt's wrapper of it."""

    __slots__ = ("call", "tracked")

    def __init__(self, tracked: Tracked, function: Any) -> None:
        self.tracked = tracked
        kind = function.func if isinstance(function, functools.partial) else function
        if not (inspect.isroutine(kind) or isinstance(kind, functools.partial)):
            kind = getattr(type(kind), "__call__", kind)  # noqa: B004 - its flags, not whether it is there
        if inspect.iscoroutinefunction(kind):
            self.call = self._coroutine
        elif inspect.isasyncgenfunction(kind):
            self.call = self._async_generator
        elif inspect.isgeneratorfunction(kind):
            self.call = self._generator
        else:
            self.call = self._plain

    def __repr__(self) -> str:
        return f"<calls of {self.tracked!r}>"

    def _plain(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run = begin(self.tracked, instance is not None, args, kwargs)
        if run is None:
            return wrapped(*args, **kwargs)
        before = get_current()
        attach(run.context)
        try:
            result = wrapped(*args, **kwargs)
        except BaseException as error:
            attach(before)
            run.fail(error)
            raise
        attach(before)
        if type(result) in _LATE:
            return _later(run.as_stream(), result)
        run.finish(result)
        return result

    # The function is called at once in all of these, so that arguments that do not fit raise where they always did.

    def _coroutine(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        coroutine = wrapped(*args, **kwargs)
        if type(coroutine) is not types.CoroutineType:
            return coroutine
        unstarted = _Unstarted(coroutine, (self.tracked, instance is not None, args, kwargs))
        return _named(_run_coroutine(unstarted), coroutine)

    def _generator(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        generator = wrapped(*args, **kwargs)
        if type(generator) is not types.GeneratorType:
            return generator
        created = get_current()
        start = functools.partial(self._stream, instance is not None, args, kwargs, created)
        return _named(_run_generator(generator, start), generator)

    def _async_generator(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        generator = wrapped(*args, **kwargs)
        if type(generator) is not types.AsyncGeneratorType:
            return generator
        created = get_current()
        start = functools.partial(self._stream, instance is not None, args, kwargs, created)
        return _named(_run_async_generator(generator, start), generator)

    def _stream(self, bound: bool, args: tuple[Any, ...], kwargs: Mapping[str, Any], created: Context) -> Run | None:
        run = begin(self.tracked, bound, args, kwargs, created_in(created), StreamRun)
        if run is not None:
            run.streams()
        return run


_LATE: Final = frozenset({types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType})


def _later(run: Run, result: Any) -> Any:
    """What a plain function gave, that does its work only later: the span ends when that has ended."""
    if type(result) is types.CoroutineType:
        return _named(_run_coroutine(_Begun(result, run)), result)
    run.streams()
    if type(result) is types.GeneratorType:
        return _named(_run_generator(result, lambda: run), result)
    return _named(_run_async_generator(result, lambda: run), result)


def _named(mine: Any, theirs: Any) -> Any:
    """Warnings and debuggers name coroutines and generators by these."""
    mine.__name__ = theirs.__name__
    mine.__qualname__ = theirs.__qualname__
    return mine


class _Unstarted:
    """A coroutine that nobody has awaited yet. If nobody ever does, Python warns of ours; once is enough."""

    __slots__ = ("_coroutine", "_given")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], given: tuple[Tracked, bool, Any, Any]) -> None:
        self._coroutine: Coroutine[Any, Any, Any] | None = coroutine
        self._given = given

    def __del__(self) -> None:
        if self._coroutine is not None:
            self._coroutine.close()

    def started(self) -> tuple[Coroutine[Any, Any, Any], Run | None]:
        coroutine, self._coroutine = self._coroutine, None
        assert coroutine is not None
        return coroutine, begin(*self._given, None, StreamRun)


class _Begun(_Unstarted):
    """A coroutine that a plain function gave; the span has begun with that."""

    __slots__ = ("_run",)

    def __init__(self, coroutine: Coroutine[Any, Any, Any], run: Run) -> None:
        self._coroutine = coroutine
        self._run = run

    def started(self) -> tuple[Coroutine[Any, Any, Any], Run | None]:
        coroutine, self._coroutine = self._coroutine, None
        assert coroutine is not None
        return coroutine, self._run


async def _run_coroutine(unstarted: _Unstarted) -> Any:
    coroutine, run = unstarted.started()
    del unstarted
    if run is None:
        return await coroutine
    before = get_current()
    attach(run.context)
    waits_for = result = _NOTHING
    try:
        # The first step here: often it is the only one.
        waits_for = coroutine.send(None)
    except StopIteration as stop:
        result = stop.value
    except BaseException as error:
        run.fail(error)
        raise
    finally:
        run.context = get_current()
        attach(before)
        del before
    if result is _NOTHING:
        try:
            result = await _steps(coroutine, run, waits_for)
        except BaseException as error:
            run.fail(error)
            raise
    run.finish(result)
    return result


_NOTHING: Final[Any] = object()


@types.coroutine
def _steps(awaitable: Any, run: Run, waits_for: Any = _NOTHING) -> Generator[Any, Any, Any]:
    """Step through a coroutine in the run's context: what another task does meanwhile is done in its own.

    Args:
        awaitable: The coroutine, or one step of an async generator.
        run: Its run.
        waits_for: What its first step gave; nothing where that is still to be made.
    """
    step, given = awaitable.send, None
    while True:
        if waits_for is not _NOTHING:
            try:
                given = yield waits_for
                step = awaitable.send
            except BaseException as error:  # noqa: BLE001 - handed on, whatever it is
                step, given = awaitable.throw, error
        before = get_current()
        attach(run.context)
        try:
            waits_for = step(given)
        except StopIteration as stop:
            return stop.value
        finally:
            # As the step left it: it may be inside of a span of its own.
            run.context = get_current()
            attach(before)
            given = None


def _run_generator(generator: Generator[Any, Any, Any], start: Callable[[], Run | None]) -> Generator[Any, Any, Any]:
    run = start()
    del start
    if run is None:
        return (yield from generator)
    step: Callable[[Any], Any] = generator.send
    given: Any = None
    while True:
        before = get_current()
        attach(run.context)
        try:
            part = step(given)
        except StopIteration as stop:
            run.finish(stop.value)
            return stop.value
        except BaseException as error:
            run.fail(error)
            raise
        finally:
            run.context = get_current()
            attach(before)
            given = None
        run.part(part)
        try:
            given = yield part
            step = generator.send
        # GeneratorExit, too: what the generator makes of it is the same as without us.
        except BaseException as error:  # noqa: BLE001 - handed on, whatever it is
            step, given = generator.throw, error
        part = None


async def _run_async_generator(
    generator: AsyncGenerator[Any, Any], start: Callable[[], Run | None]
) -> AsyncGenerator[Any, Any]:
    run = start()
    del start
    make: Callable[[Any], Any] = generator.asend
    given: Any = None
    # The event loop is to know one generator, and to finish that: with two, each would be finished by itself.
    # In a circle that is garbage both go at once; then the loop finishes the one it knows, and that the other.
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None if hooks.finalizer is None else _left_to_the_other)
    try:
        awaitable = make(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)
    while True:
        try:
            part = await (awaitable if run is None else _steps(awaitable, run))
        except StopAsyncIteration:
            if run is not None:
                run.finish()
            return
        except BaseException as error:
            if run is not None:
                run.fail(error)
            raise
        finally:
            given = None
        if run is not None:
            run.part(part)
        try:
            given = yield part
            make = generator.asend
        except BaseException as error:  # noqa: BLE001 - handed on, whatever it is
            make, given = generator.athrow, error
        part = None
        awaitable = make(given)


def _left_to_the_other(generator: AsyncGenerator[Any, Any]) -> None:
    """What finishes an async generator that was abandoned: nothing, as that which steps through it does."""


class _Bound(wrapt.BoundFunctionWrapper):  # type: ignore[type-arg]
    """A tracked method of an instance or a class."""

    def __init__(self, *given: Any) -> None:
        if len(given) != 2:
            super().__init__(*given)
            return
        # As `weakref.WeakMethod` makes a method anew, of its function and its object.
        function, owner = given
        now = getattr(owner, function.__name__, None)
        if isinstance(now, _Bound) and getattr(now.__wrapped__, "__func__", None) is function:
            super().__init__(  # type: ignore[call-arg]
                now.__wrapped__,
                now._self_instance,
                now._self_wrapper,
                now._self_enabled,
                now._self_binding,
                now._self_parent,
            )
        else:
            super().__init__(  # type: ignore[call-arg]
                types.MethodType(function, owner), owner, _untracked, None, "function", None
            )

    def __reduce_ex__(self, protocol: Any) -> Any:
        owner = getattr(self.__wrapped__, "__self__", None)
        if owner is not None:
            return getattr, (owner, self.__wrapped__.__name__)
        return _resolved, (self.__wrapped__.__module__, self.__wrapped__.__qualname__)


def _untracked(wrapped: Any, _: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return wrapped(*args, **kwargs)


class TrackedFunction(wrapt.FunctionWrapper):  # type: ignore[type-arg]
    """A tracked function. It is the function in all but its calls."""

    __bound_function_wrapper__ = _Bound

    def __reduce_ex__(self, protocol: Any) -> Any:
        function = self.__wrapped__
        if inspect.isroutine(function) and not inspect.ismethod(function):
            return str(function.__qualname__)  # by name, as functions are
        calls: Any = self._self_wrapper
        return _retracked, (function, calls.__self__.tracked)

    def __copy__(self) -> TrackedFunction:
        return self

    def __deepcopy__(self, memo: Any) -> TrackedFunction:
        return self


def _resolved(module: str, qualname: str) -> Any:
    return functools.reduce(getattr, qualname.split("."), importlib.import_module(module))


def _retracked(function: Any, tracked: Tracked) -> TrackedFunction:
    return TrackedFunction(function, _Calls(tracked, function).call)
