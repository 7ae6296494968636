"""The host cannot notice: each program prints the same, and ends the same way, with Weir and without.

All programs run in forked children of one process, once without Weir, and under the launcher with records kept and
with records dropped. Each child ends like any interpreter, with its `atexit` functions and its excepthook.
"""

from __future__ import annotations

import difflib
import functools
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from otelweir.testing import Backend

PROGRAMS: Final[dict[str, str]] = {
    "basicConfig configures": """
        import logging
        logging.basicConfig(level=logging.DEBUG, format="%(levelname)s:%(name)s:%(message)s")
        logging.debug("one")
        logging.getLogger("a").info("two %s", 2)
        print(logging.getLogger().handlers, logging.root.level)
    """,
    "basicConfig after records, and again, and with force": """
        import logging, sys
        log = logging.getLogger("a")
        log.warning("before")
        logging.basicConfig(format="1 %(message)s", stream=sys.stdout)
        log.warning("first")
        logging.basicConfig(format="2 %(message)s", stream=sys.stdout)
        log.warning("no-op")
        logging.basicConfig(format="3 %(message)s", stream=sys.stdout, force=True)
        log.warning("forced")
    """,
    "module functions configure by themselves": """
        import logging
        logging.info("not shown")
        logging.warning("shown")
        logging.getLogger("x").warning("shown too")
        print(logging.getLogger().hasHandlers(), len(logging.root.handlers))
    """,
    "the last resort speaks": """
        import logging
        log = logging.getLogger("a.b")
        log.info("silent"); log.warning("to stderr"); log.error("with %s", "arguments")
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception("and a traceback")
    """,
    "without a last resort there is one notice": """
        import logging
        logging.lastResort = None
        logging.getLogger("a").info("x")
        logging.getLogger("a").warning("x")
        logging.getLogger("b").warning("x")
        print(logging.Logger.manager.emittedNoHandlerWarning)
    """,
    "without a last resort, at a level that is never shown": """
        import logging
        logging.lastResort = None
        log = logging.getLogger("a"); log.setLevel(1)
        log.debug("x"); log.debug("y")
        print(log.manager.emittedNoHandlerWarning)
    """,
    "another last resort": """
        import logging, sys
        logging.lastResort = logging.StreamHandler(sys.stdout)
        log = logging.getLogger("a"); log.setLevel(1)
        log.debug("shown"); log.info("shown %d", 2)
    """,
    "levels": """
        import logging
        logging.basicConfig(level=logging.INFO)
        log = logging.getLogger("a.b.c")
        for level in (5, 10, 20, 30, 40, 50):
            print(level, log.isEnabledFor(level), logging.getLogger("a").isEnabledFor(level))
            log.log(level, "at %d", level)
        log.setLevel(logging.ERROR); log.warning("no"); log.error("yes")
        logging.getLogger("a").setLevel(5); log.setLevel(0); log.log(5, "now")
        print(log.getEffectiveLevel())
    """,
    "logging.disable": """
        import logging
        logging.basicConfig(level=1)
        log = logging.getLogger("a")
        logging.disable(logging.WARNING); log.warning("no"); log.error("yes"); print(log.isEnabledFor(30))
        logging.disable(logging.NOTSET); log.debug("again"); print(log.isEnabledFor(10))
    """,
    "custom levels": """
        import logging
        logging.addLevelName(25, "NOTICE"); logging.addLevelName(5, "TRACE")
        logging.basicConfig(level=5, format="%(levelname)s %(levelno)d %(message)s")
        def notice(self, msg, *args, **kwargs):
            if self.isEnabledFor(25):
                self._log(25, msg, args, **kwargs)
        logging.Logger.notice = notice
        log = logging.getLogger("a")
        log.notice("hello %s", "you"); log.log(5, "trace"); log.log(33, "odd")
    """,
    "levels that are no numbers": """
        import logging
        logging.basicConfig()
        for level in ("INFO", None, 10.5):
            try:
                logging.getLogger("a").log(level, "x")
                logging.getLogger("a")._log(level, "y", ())
            except TypeError as error:
                print("TypeError", error)
    """,
    "dictConfig": """
        import logging, logging.config
        early = logging.getLogger("early")
        logging.config.dictConfig({
            "version": 1, "formatters": {"f": {"format": "%(levelname)s|%(name)s|%(message)s"}},
            "handlers": {"h": {"class": "logging.StreamHandler", "formatter": "f", "stream": "ext://sys.stdout"}},
            "root": {"handlers": ["h"], "level": "INFO"},
            "loggers": {"quiet": {"level": "ERROR"},
                        "apart": {"propagate": False, "handlers": ["h"], "level": "DEBUG"}},
        })
        for name in ("early", "quiet", "apart", "late"):
            log = logging.getLogger(name)
            log.debug("d"); log.info("i"); log.error("e"); print(name, log.disabled, log.propagate, log.handlers)
    """,
    "dictConfig that leaves loggers alone, then one that only changes": """
        import logging, logging.config
        early = logging.getLogger("early")
        base = {"version": 1, "handlers": {"h": {"class": "logging.StreamHandler"}},
                "root": {"handlers": ["h"], "level": "INFO"}, "disable_existing_loggers": False}
        logging.config.dictConfig(base)
        early.info("works")
        logging.config.dictConfig({"version": 1, "incremental": True, "root": {"level": "ERROR"}})
        early.info("no"); early.error("yes")
        print(early.disabled)
    """,
    "fileConfig": """
        import logging, logging.config, io
        early = logging.getLogger("early")
        logging.config.fileConfig(io.StringIO('''
        [loggers]
        keys=root
        [handlers]
        keys=h
        [formatters]
        keys=f
        [logger_root]
        level=DEBUG
        handlers=h
        [handler_h]
        class=StreamHandler
        level=NOTSET
        formatter=f
        args=(sys.stdout,)
        [formatter_f]
        format=%(name)s %(levelname)s %(message)s
        '''.replace("\\n        ", "\\n")))
        early.error("disabled"); logging.getLogger("late").debug("shown"); logging.debug("root")
        print(early.disabled)
    """,
    "propagation": """
        import logging, sys
        outer, inner = logging.getLogger("o"), logging.getLogger("o.i")
        for log, name in ((outer, "outer"), (inner, "inner"), (logging.root, "root")):
            handler = logging.StreamHandler(sys.stdout); handler.setFormatter(logging.Formatter(name + " %(message)s"))
            log.addHandler(handler)
        inner.warning("all three")
        inner.propagate = False; inner.warning("inner only")
        inner.propagate = True; outer.propagate = False; inner.warning("two")
        late = logging.getLogger("o.i.late"); late.warning("made later")
        inner.handlers.clear(); outer.handlers.clear(); inner.warning("nobody; last resort")
    """,
    "a logger class of one's own": """
        import logging
        class Chatty(logging.Logger):
            def _log(self, level, msg, args, **kwargs):
                print("_log", level, msg, args); super()._log(level, msg, args, **kwargs)
            def makeRecord(self, *args, **kwargs):
                print("makeRecord"); return super().makeRecord(*args, **kwargs)
            def handle(self, record):
                print("handle", record.getMessage()); super().handle(record)
            def filter(self, record):
                print("filter"); return super().filter(record)
            def callHandlers(self, record):
                print("callHandlers"); super().callHandlers(record)
            def findCaller(self, *args, **kwargs):
                found = super().findCaller(*args, **kwargs); print("findCaller", found[1:3]); return found
        logging.setLoggerClass(Chatty)
        log = logging.getLogger("a"); log.setLevel(1)
        log.info("hello %s", "you"); log.warning("loud")
        log.addHandler(logging.NullHandler()); log.info("to nobody")
    """,
    "logger classes, one method at a time": """
        import logging
        def patched(name):
            def method(self, *args, **kwargs):
                print(name); return getattr(logging.Logger, name)(self, *args, **kwargs)
            return method
        for name in ("_log", "makeRecord", "handle", "filter", "callHandlers", "findCaller"):
            logging.setLoggerClass(type("Own", (logging.Logger,), {name: patched(name)}))
            log = logging.getLogger("own." + name.strip("_")); log.setLevel(1); log.addHandler(logging.NullHandler())
            for _ in range(3):
                log.info("hello")
    """,
    "methods patched on one logger": """
        import logging
        for name in ("_log", "makeRecord", "handle", "filter", "callHandlers", "findCaller"):
            log = logging.getLogger(name.strip("_")); log.setLevel(1); log.addHandler(logging.NullHandler())
            def spy(*args, was=getattr(log, name), name=name, **kwargs):
                print("spy on", name); return was(*args, **kwargs)
            setattr(log, name, spy)
            log.info("hello"); log.info("hello")
    """,
    "methods patched on the class, as monitoring tools do": """
        import logging
        logging.getLogger().addHandler(logging.NullHandler())
        log = logging.getLogger("a"); log.setLevel(1)
        for name in ("callHandlers", "handle", "makeRecord", "_log"):
            was = getattr(logging.Logger, name)
            def spy(self, *args, was=was, name=name, **kwargs):
                try:
                    return was(self, *args, **kwargs)
                finally:
                    print("spied", name)
            setattr(logging.Logger, name, spy)
            log.info("hello %s", name); log.debug("hello")
            setattr(logging.Logger, name, was)
        log.info("bye")
    """,
    "record factories": """
        import logging, sys
        old = logging.getLogRecordFactory()
        def factory(*args, **kwargs):
            record = old(*args, **kwargs); record.custom = 42; print("made", record.getMessage()); return record
        logging.setLogRecordFactory(factory)
        logging.basicConfig(format="%(custom)d %(message)s", stream=sys.stdout)
        logging.warning("hello %s", 1)
        log = logging.getLogger("n"); log.propagate = False; log.addHandler(logging.NullHandler()); log.setLevel(1)
        log.info("made for nobody")
    """,
    "adapters": """
        import logging, sys
        logging.basicConfig(format="%(name)s %(funcName)s %(message)s %(tag)s", stream=sys.stdout, level=1)
        class Prefix(logging.LoggerAdapter):
            def process(self, msg, kwargs):
                kwargs["extra"] = {"tag": "t"}; return "[%s] %s" % (self.extra["who"], msg), kwargs
        def work():
            log = Prefix(logging.getLogger("a"), {"who": "me"})
            log.info("hello %s", "you"); log.warning("100%% %d", 3); log.log(7, "seven")
            nested = logging.LoggerAdapter(log, {"who": "inner"}); nested.error("nested")
            try:
                [][0]
            except IndexError:
                log.exception("failed")
        work()
    """,
    "the cookbook's style adapter": """
        import logging, sys
        class Message:
            def __init__(self, fmt, args): self.fmt, self.args = fmt, args
            def __str__(self): return self.fmt.format(*self.args)
        class StyleAdapter(logging.LoggerAdapter):
            def log(self, level, msg, /, *args, stacklevel=1, **kwargs):
                if self.isEnabledFor(level):
                    msg, kwargs = self.process(msg, kwargs)
                    self.logger.log(level, Message(msg, args), **kwargs, stacklevel=stacklevel + 1)
        log = StyleAdapter(logging.getLogger("a"), {})
        def caller():
            for n in range(4):
                log.debug("Hello, {0} {1}!", "world", n)
        logging.basicConfig(level=logging.DEBUG, format="%(funcName)s:%(lineno)d %(message)s", stream=sys.stdout)
        caller()
    """,
    "filters": """
        import logging, sys
        log = logging.getLogger("a"); handler = logging.StreamHandler(sys.stdout); logging.root.addHandler(handler)
        class Drop(logging.Filter):
            def filter(self, record): return "secret" not in record.getMessage()
        class Change:
            def filter(self, record): record.msg = record.msg.upper(); record.args = (); return True
        log.addFilter(Drop()); log.warning("secret"); log.warning("open %s", "secret"); log.warning("open")
        handler.addFilter(Change()); log.warning("change"); log.warning("me")
        log.addFilter(lambda record: print("asked", record.msg) or True); log.warning("asked")
        log.addHandler(logging.NullHandler()); logging.root.removeHandler(handler); log.warning("for nobody")
        child = logging.getLogger("a.b"); child.warning("a parent's filter is not asked")
    """,
    "a filter that replaces the record": """
        import logging, sys, copy
        def replace(record):
            other = copy.copy(record); other.msg = "replaced"; return other
        log = logging.getLogger("a"); log.addFilter(replace); logging.basicConfig(stream=sys.stdout)
        log.warning("original")
        log2 = logging.getLogger("b"); logging.root.handlers[0].addFilter(replace); log2.warning("original")
    """,
    "a filter that raises": """
        import logging
        log = logging.getLogger("a")
        @log.addFilter
        def broken(record): raise ValueError("broken filter")
        log.warning("hello")
    """,
    "a queue": """
        import logging, logging.handlers, queue, sys
        q = queue.Queue(); out = logging.StreamHandler(sys.stdout)
        out.setFormatter(logging.Formatter("%(name)s %(lineno)d %(message)s"))
        listener = logging.handlers.QueueListener(q, out, respect_handler_level=True); listener.start()
        logging.root.addHandler(logging.handlers.QueueHandler(q)); logging.root.setLevel(1)
        for n in range(5): logging.getLogger("a").info("item %d", n)
        try:
            int("x")
        except ValueError:
            logging.exception("bad")
        listener.stop()
    """,
    "a buffer": """
        import logging, logging.handlers, sys
        memory = logging.handlers.MemoryHandler(100, logging.ERROR, logging.StreamHandler(sys.stdout))
        log = logging.getLogger("a"); log.addHandler(memory); log.setLevel(1)
        for n in range(5): log.debug("step %d", n)
        print("nothing yet"); log.error("now"); log.info("left"); print("end")
    """,
    "handlers that fail": """
        import logging
        class Broken(logging.Handler):
            def emit(self, record): raise RuntimeError("broken handler")
        class Handled(logging.StreamHandler):
            def format(self, record): raise RuntimeError("broken format")
        log = logging.getLogger("a"); log.addHandler(Handled()); log.warning("one %s", 1)
        logging.raiseExceptions = False; log.warning("silent"); logging.raiseExceptions = True
        log.addHandler(Broken())
        try:
            log.warning("two")
        except RuntimeError:
            import traceback; traceback.print_exc()
        def deep(): log.error("three")
        deep()
    """,
    "arguments that do not fit": """
        import logging
        logging.basicConfig()
        def caller():
            logging.warning("%d apples", "many"); logging.warning("%s and %s", 1); logging.warning("none", 1)
            logging.warning("%(a)s", {"b": 1}); logging.warning("%(a)s %(b)s", {"a": 1, "b": 2})
            logging.warning("%", 5)
        caller()
        log = logging.getLogger("n"); log.propagate = False; log.addHandler(logging.NullHandler())
        log.warning("%d", "x")
    """,
    "places in the source": """
        import logging, sys, os
        logging.basicConfig(stream=sys.stdout, level=1,
            format="%(filename)s %(module)s %(funcName)s %(lineno)d %(message)s " + "%(processName)s %(threadName)s")
        log = logging.getLogger("a")
        def helper(message): log.info(message, stacklevel=2)
        def caller():
            helper("from the caller"); log.info("here"); logging.info("module function"); log.log(20, "log")
            (lambda: log.info("lambda"))(); [log.info("comprehension") for _ in "x"]
            log.info("far", stacklevel=30)
        caller()
        class Service:
            def run(self): log.warning("method")
        Service().run()
    """,
    "stack_info": """
        import logging
        logging.basicConfig()
        def outer(): inner()
        def inner():
            logging.warning("with stack", stack_info=True)
            logging.getLogger("x").error("again", stack_info=True)
        outer()
    """,
    "exc_info in all its forms": """
        import logging, sys
        logging.basicConfig()
        log = logging.getLogger("a")
        try:
            try: {}["x"]
            except KeyError as cause: raise ValueError("with a cause") from cause
        except ValueError as error:
            log.error("true", exc_info=True); log.error("value", exc_info=error)
            log.error("tuple", exc_info=sys.exc_info())
            log.warning("one", exc_info=1); log.error("false", exc_info=False)
        log.error("none", exc_info=True); log.exception("no exception"); log.error("empty", exc_info=(None, None, None))
        log.error("class", exc_info=ValueError("not raised"))
    """,
    "extra that overwrites": """
        import logging, traceback
        log = logging.getLogger("a"); log.setLevel(1); log.addHandler(logging.NullHandler())
        def caller(extra):
            try: log.debug("x", extra=extra)
            except KeyError: traceback.print_exc()
        for n in range(3):
            caller({"message": 1}); caller({"name": "x"}); caller({"asctime": 1}); caller({"fine": 1}); caller({})
        logging.warning("%s", "x", extra={"args": 1})
    """,
    "an uncaught error out of extra": """
        import logging
        logging.getLogger("a").warning("x", extra={"msg": "y"})
    """,
    "wrong keyword arguments": """
        import logging
        log = logging.getLogger("a")
        try: log.warning("x", color="red")
        except TypeError as error: print(error)
        try: log.warning()
        except TypeError as error: print(error)
        log.info("dropped before anybody looks", color="red")
    """,
    "records carry nothing new": """
        import logging
        class Dump(logging.Handler):
            def emit(self, record):
                fields = dict(vars(record))
                print(list(fields)); print(fields["msg"], fields["args"], fields["lineno"], fields.get("order"))
        logging.root.addHandler(Dump()); logging.root.setLevel(1)
        logging.info("hello %s", "you", extra={"order": 7}); logging.getLogger("a").warning({"a": 1})
        print(sorted(vars(logging.getLogger("a"))))
    """,
    "warnings": """
        import logging, warnings
        logging.captureWarnings(True); logging.basicConfig(format="%(name)s %(levelname)s %(message)s")
        warnings.warn("careful"); warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False); warnings.warn("plain")
    """,
    "warnings without a handler": """
        import logging, warnings
        logging.captureWarnings(True); warnings.warn("careful"); print(logging.getLogger("py.warnings").handlers)
    """,
    "__del__ and atexit": """
        import atexit, logging, sys
        logging.basicConfig(stream=sys.stdout)
        class Gone:
            def __del__(self): logging.warning("gone")
        Gone(); x = Gone(); del x
        atexit.register(logging.warning, "at exit"); atexit.register(print, "print at exit")
    """,
    "threads": """
        import logging, sys, threading
        logging.basicConfig(stream=sys.stdout, format="%(threadName)s %(message)s", level=1)
        for n in range(4):
            thread = threading.Thread(target=lambda: [logging.info("step %d", i) for i in range(3)], name=f"t{n}")
            thread.start(); thread.join()
        threading.Thread(target=lambda: 1 / 0, name="fails").start()
    """,
    "signals": """
        import logging, signal, os, sys
        logging.basicConfig(stream=sys.stdout, level=1)
        signal.signal(signal.SIGUSR1, lambda *_: logging.info("signal"))
        class Sends:
            def __str__(self): os.kill(os.getpid(), signal.SIGUSR1); return "sent"
        logging.info("before"); os.kill(os.getpid(), signal.SIGUSR1); logging.info("after")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(3)); os.kill(os.getpid(), signal.SIGTERM)
    """,
    "asyncio": """
        import asyncio, logging, sys
        logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(name)s %(funcName)s %(message)s")
        async def job(n):
            logging.info("start %d", n); await asyncio.sleep(0); logging.info("end %d", n)
        async def main():
            await asyncio.gather(*(job(n) for n in range(3)))
            asyncio.get_running_loop().call_exception_handler({"message": "by hand"})
        asyncio.run(main(), debug=False)
    """,
    "logging after its shutdown": """
        import logging, sys
        logging.basicConfig(stream=sys.stdout); logging.warning("before"); logging.shutdown(); logging.warning("after")
    """,
    "an excepthook that logs": """
        import logging, sys
        logging.basicConfig()
        sys.excepthook = lambda *exc: logging.critical("uncaught", exc_info=exc)
        def fail(): raise LookupError("lost")
        fail()
    """,
    "an uncaught exception": """
        import logging
        logging.warning("soon")
        def fail(): raise LookupError("lost")
        fail()
    """,
    "an exit code": """
        import logging, sys
        logging.getLogger("a").error("leaving"); sys.exit(7)
    """,
    "an exit message": """
        import logging
        logging.basicConfig(); logging.error("leaving"); raise SystemExit("good bye")
    """,
    "Loguru's intercept recipe": """
        import inspect, logging
        class InterceptHandler(logging.Handler):
            def emit(self, record):
                frame, depth = inspect.currentframe(), 0
                while frame and (depth == 0 or frame.f_code.co_filename == logging.__file__):
                    frame = frame.f_back; depth += 1
                print(depth, frame.f_code.co_name, frame.f_lineno, record.getMessage())
        logging.basicConfig(handlers=[InterceptHandler()], level=0, force=True)
        def caller():
            logging.getLogger("a").info("hello"); logging.getLogger("b").log(33, "x"); logging.warning("root")
            logging.LoggerAdapter(logging.getLogger("c"), {}).error("adapted")
        caller()
    """,
    "assertLogs": """
        import logging, unittest
        class Test(unittest.TestCase):
            def test_logs(self):
                with self.assertLogs("a", "INFO") as caught: logging.getLogger("a.b").info("hello %s", 1)
                print(caught.output, caught.records[0].args)
            def test_no_logs(self):
                with self.assertNoLogs("a"): logging.getLogger("b").warning("elsewhere")
            def test_fails(self):
                with self.assertRaises(AssertionError):
                    with self.assertLogs("a"): pass
        unittest.main(argv=["x"], testRunner=unittest.TextTestRunner(stream=open("/dev/null", "w")), exit=False)
    """,
    "recursion": """
        import logging, sys
        logging.basicConfig(stream=sys.stdout)
        log = logging.getLogger("a")
        def down(n):
            try: down(n + 1)
            except RecursionError: raise
        try: down(0)
        except RecursionError: log.warning("at the bottom")
        class Itself:
            def __str__(self): log.warning("%s", self); return "x"
        sys.setrecursionlimit(150)
        depth = []
        class Endless(logging.Handler):
            def emit(self, record): depth.append(1); log.warning("again")
        log.handlers[:] = [Endless()]; log.propagate = False
        try: log.warning("start")
        except RecursionError: sys.setrecursionlimit(1000); print("over")
    """,
    "logging near the end of the stack": """
        import logging, sys
        log = logging.getLogger("a"); log.setLevel(1); log.addHandler(logging.NullHandler())
        lines = []
        class Keep(logging.Handler):
            def emit(self, record): lines.append(record.getMessage())
        def down(n):
            log.info("n %d", n)
            down(n + 1)
        for handler in (logging.NullHandler(), Keep()):
            log.handlers[:] = [handler]
            try: down(0)
            except RecursionError as error: print(type(error).__name__)
        print(len(lines) > 900)
    """,
    "values that log while they are shown": """
        import logging, sys
        logging.basicConfig(stream=sys.stdout, level=1)
        log = logging.getLogger("a")
        class Talks:
            def __str__(self): log.info("asked for my text"); return "talks"
            __repr__ = __str__
        log.info("value %s", Talks()); log.info(Talks()); log.info("in %s", [Talks()])
        log.info("x", extra={"k": Talks()})
        try: raise ValueError(Talks())
        except ValueError: log.exception("failed")
    """,
    "pickle, copy and inspect": """
        import copy, inspect, logging, pickle
        log = logging.getLogger("a")
        print(pickle.loads(pickle.dumps(log)) is log, copy.copy(log) is log, log, logging.root)
        for name in ("_log", "callHandlers", "info", "handle"):
            method = getattr(logging.Logger, name)
            print(method.__qualname__, method.__module__, inspect.signature(method), inspect.getsourcelines(method)[1])
            print(inspect.getsource(method)[:60], method.__doc__, method.__defaults__)
            print(inspect.getfile(method) == logging.__file__, method.__code__.co_qualname)
            print(method.__code__.co_firstlineno)
        print(sorted(n for n in vars(logging) if "weir" in n.lower()), sorted(vars(logging.Logger)))
        print(logging.Logger.manager.loggerClass, logging.getLoggerClass(), logging.getLogRecordFactory())
    """,
    "records made by hand": """
        import logging, sys
        logging.basicConfig(stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")
        log = logging.getLogger("a")
        log.handle(logging.makeLogRecord({"msg": "bare", "name": "made", "levelno": 30, "levelname": "WARNING"}))
        log.handle(log.makeRecord("other", 40, "f.py", 3, "with %s", ("args",), None))
        log.callHandlers(logging.LogRecord("x", 20, "p", 1, "direct", None, None))
        log.disabled = True; log.warning("disabled"); log._log(30, "disabled too", ())
    """,
    "loggers that come and go": """
        import logging, sys
        logging.basicConfig(stream=sys.stdout, level=1)
        for n in range(50): logging.getLogger(f"pkg.mod{n}").debug("hello")
        print(len(logging.Logger.manager.loggerDict) >= 50, logging.getLogger("pkg").getChild("mod1"))
        alone = logging.Logger("alone"); alone.warning("no parent")
        alone.addHandler(logging.StreamHandler(sys.stdout)); alone.debug("but a handler")
    """,
    "files that handlers own": """
        import logging, tempfile, os
        path = os.path.join(tempfile.mkdtemp(), "x.log")
        handler = logging.FileHandler(path, delay=True); logging.root.addHandler(handler); logging.root.setLevel(1)
        logging.info("to a file"); handler.close(); print(open(path).read(), logging._handlerList[-1])
    """,
    "tracing sees the lines of logging": """
        import logging, sys
        lines = set()
        def trace(frame, event, arg):
            if frame.f_code.co_name in ("_log", "callHandlers") and frame.f_code.co_filename == logging.__file__:
                lines.add((frame.f_code.co_name, frame.f_lineno - frame.f_code.co_firstlineno))
                return trace
        logging.root.addHandler(logging.StreamHandler(sys.stdout))
        logging.root.setLevel(1)
        sys.settrace(trace); logging.info("traced"); sys.settrace(None)
        print(sorted(line for line in lines if line[1] > 0))
    """,
}

DRIVER: Final = """
import json, os, runpy, sys, warnings
results, folder = {}, sys.argv[1]
if "otelweir" in sys.modules:  # once, instead of in every child
    import opentelemetry.exporter.otlp.proto.http._log_exporter, opentelemetry.exporter.otlp.proto.http.metric_exporter
for name in sorted(os.listdir(folder)):
    if not name.endswith(".py"):
        continue
    files = [os.path.join(folder, name + end) for end in (".out", ".err")]
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from 3.12 on, a fork while there are threads brings a warning
        child = os.fork()
    if child == 0:
        for number, file in enumerate(files, 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv[:] = [os.path.join(folder, name)]
        runpy.run_path(sys.argv[0], run_name="__main__")
        break
    results[name] = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])] + [open(file).read() for file in files]
else:
    print(json.dumps(results))
"""

Result = tuple[int, str, str]
"""Exit code, stdout, stderr."""

MODES: Final = {
    "kept": {"WEIR_LOG_SAMPLING": "off"},
    "dropped": {"WEIR_LOG_RATES": "trace=0,debug=0,info=0,warn=0", "WEIR_LOG_FIRST": "1"},
}


def _file(name: str) -> str:
    return re.sub(r"\W+", "_", name) + ".py"


def _normal(text: str) -> str:
    text = re.sub(r"0x[0-9a-f]+", "0x", text)
    return re.sub(r"/tmp/tmp\w+", "/tmp/x", text)


def _run(folder: Path, launcher: list[str], environ: dict[str, str]) -> dict[str, Result]:
    driver = folder.parent / "driver.py"
    driver.write_text(DRIVER)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "WEIR_", "PYTEST"))}
    done = subprocess.run(
        [*launcher, sys.executable, str(driver), str(folder)],
        env={**clean, "PYTHONHASHSEED": "0", **environ},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    if (done.returncode, done.stderr) != (0, ""):
        pytest.exit(f"the programs cannot run: {done.returncode} {done.stderr}")
    found: dict[str, list[object]] = json.loads(done.stdout)
    return {name: (int(str(code)), _normal(str(out)), _normal(str(err))) for name, (code, out, err) in found.items()}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Result]]:
    """Runs all programs in a mode, once."""
    folder = tmp_path_factory.mktemp("programs")
    for name, program in PROGRAMS.items():
        (folder / _file(name)).write_text(textwrap.dedent(program).strip() + "\n")

    @functools.cache
    def get(mode: str) -> dict[str, Result]:
        if mode == "without":
            return _run(folder, [], {})
        launcher = str(Path(sys.executable).with_name("opentelemetry-instrument"))
        with Backend() as backend:
            environ = {
                "OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoint,
                "OTEL_PYTHON_DISTRO": "weir",
                "OTEL_PYTHON_CONFIGURATOR": "weir",
                **MODES[mode],
            }
            found = _run(folder, [launcher], environ)
            assert backend.logs, "Weir was not there"
        return found

    return get


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the programs run in forked children")
@pytest.mark.parametrize("name", PROGRAMS)
class TestAProgram:
    @pytest.mark.parametrize("mode", MODES)
    def test_prints_and_returns_the_same(self, run: Callable[[str], dict[str, Result]], mode: str, name: str) -> None:
        expected, found = run("without")[_file(name)], run(mode)[_file(name)]
        for stream, before, after in zip(("exit code", "stdout", "stderr"), expected, found, strict=True):
            diff = difflib.unified_diff(
                str(before).splitlines(), str(after).splitlines(), "without", "with", lineterm=""
            )
            assert before == after, f"{stream} differs:\n" + "\n".join(diff)

    def test_does_what_it_is_there_for(self, run: Callable[[str], dict[str, Result]], name: str) -> None:
        """One that prints nothing, or fails on a mistake in it, would prove nothing."""
        _, out, err = run("without")[_file(name)]
        assert out or err
        assert not re.search("SyntaxError|NameError|AttributeError|ImportError", err)
