"""Children of a process: every record arrives once, and the counts of all processes add up to what was logged."""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otelweir.testing import Backend

if TYPE_CHECKING:
    from tests.distro.conftest import Launch

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

HEAD = """
    import logging, multiprocessing, os, sys, threading, time, warnings
    warnings.simplefilter("ignore")  # from 3.12 on, forking while there are threads brings one
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger().setLevel(1)
    log = logging.getLogger("work")

    def work(name, count=40):
        for n in range(count):
            log.info("item %d of %s", n, name)
        log.error("done %s", name)
        return name
"""


def _program(body: str) -> str:
    return textwrap.dedent(HEAD) + textwrap.dedent(body)


def _seen(backend: Backend) -> int:
    """The records of the test's loggers, as the roll-ups count them."""
    templates = ("item <*> of <*>", "done <*>")
    return sum(
        log.attributes["weir.seen"]
        for log in backend.logs
        if log.event_name == "weir.log.pattern.rollup" and log.attributes["log.record.template"] in templates
    )


def _done(backend: Backend) -> Counter[str]:
    return Counter(log.body for log in backend.logs if str(log.body).startswith("done"))


CASES = {
    "os.fork, flush, os._exit": """
        import otelweir
        work("parent before")
        children = []
        for n in range(5):
            child = os.fork()
            if child == 0:
                work(f"child {n}")
                assert otelweir.configure().flush()
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        work("parent after")
    """,
    "os.fork, then the usual end": """
        work("parent before")
        time.sleep(0.3)
        for n in range(6):
            child = os.fork()
            if child == 0:
                work(f"child {n}")
                sys.exit()
            os.waitpid(child, 0)
        work("parent after")
    """,
    "multiprocessing by fork": """
        work("parent before")
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=work, args=(f"child {n}",)) for n in range(5)]
        for child in children: child.start()
        for child in children: child.join()
        work("parent after")
    """,
    "a pool by fork": """
        from concurrent.futures import ProcessPoolExecutor
        work("parent before")
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
            print(list(pool.map(work, [f"child {n}" for n in range(5)])))
        work("parent after")
    """,
}


@pytest.mark.parametrize("case", CASES)
def test_every_record_arrives_once_and_counts_add_up(launch: Launch, backend: Backend, case: str) -> None:
    ended = launch(
        _program(CASES[case]),
        OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint,
        OTEL_BLRP_SCHEDULE_DELAY="100",
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
    )
    assert (ended.code, ended.err) == (0, "")
    names = ["parent before", "parent after"] + [f"child {n}" for n in range(6 if "usual" in case else 5)]
    assert _done(backend) == Counter({f"done {name}": 1 for name in names})
    assert _seen(backend) == 41 * len(names)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_children_that_start_anew_configure_themselves(launch: Launch, backend: Backend, method: str) -> None:
    """`opentelemetry-instrument` leaves children alone that are new programs; code that configures runs again."""
    program = f"""
        import otelweir
        otelweir.configure()
        if __name__ == "__main__":
            work("parent before")
            context = multiprocessing.get_context("{method}")
            children = [context.Process(target=work, args=(f"child {{n}}",)) for n in range(2)]
            for child in children: child.start()
            for child in children: child.join()
            work("parent after")
    """
    ended = launch.plain(
        _program(program),
        OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint,
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
    )
    assert (ended.code, ended.err) == (0, "")
    names = ["parent before", "parent after", "child 0", "child 1"]
    assert _done(backend) == Counter({f"done {name}": 1 for name in names})
    assert _seen(backend) == 41 * len(names)


def test_forks_while_threads_log_and_the_exporter_is_being_loaded(launch: Launch, backend: Backend) -> None:
    """The first export imports an HTTP client on the exporting thread: a child must not inherit a half-done import."""
    program = """
        import otelweir
        stop, counts = threading.Event(), []
        def chatter(name):
            n = 0
            while not stop.is_set():
                logging.getLogger(f"chatter.{n % 50}").info("chatter %d", n)
                n += 1
                if n % 20 == 0: time.sleep(0.001)
            counts.append(n)
        threads = [threading.Thread(target=chatter, args=(n,)) for n in range(3)]
        for thread in threads: thread.start()
        children = []
        for n in range(25):
            child = os.fork()
            if child == 0:
                log.error("done child %d", n)
                os._exit(0 if otelweir.configure().flush(20) else 1)
            children.append(child)
            time.sleep(0.02)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        stop.set()
        for thread in threads: thread.join()
        print(codes == [0] * 25, sum(counts))
    """
    ended = launch(
        _program(program),
        OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint,
        OTEL_BLRP_SCHEDULE_DELAY="50",
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
        WEIR_LOG_RATES="info=0.01",
    )
    assert (ended.code, ended.err) == (0, "")
    fine, logged = ended.out.split()
    assert fine == "True"
    assert _done(backend) == Counter({f"done child {n}": 1 for n in range(25)})
    seen = sum(
        log.attributes["weir.seen"]
        for log in backend.logs
        if log.event_name == "weir.log.pattern.rollup" and log.attributes["log.record.template"] == "chatter <*>"
    )
    assert seen == int(logged)


def test_a_fork_while_a_thread_imports_what_the_exporter_needs(launch: Launch, backend: Backend) -> None:
    """The child's copy of that import would never be over."""
    program = """
        import importlib.abc, socket, otelweir
        otelweir.configure()
        class Slow(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name in ("encodings.idna", "requests"):
                    begun.set()
                    time.sleep(0.5)
        begun = threading.Event()
        sys.meta_path.insert(0, Slow())
        assert "encodings.idna" not in sys.modules
        resolver = threading.Thread(target=socket.getaddrinfo, args=("localhost", 80))
        resolver.start()
        begun.wait()
        child = os.fork()
        if child == 0:
            work("child")
            sys.exit()
        os.waitpid(child, 0)
        resolver.join()
        work("parent")
    """
    # Not under the launcher: what it instruments may have imported it by then.
    ended = launch.plain(
        _program(program),
        OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint,
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
    )
    assert (ended.code, ended.err) == (0, "")
    assert _done(backend) == Counter({"done child": 1, "done parent": 1})
    assert _seen(backend) == 41 * 2


def test_workers_of_gunicorn(launch: Launch, backend: Backend) -> None:
    program = """
        import signal, subprocess, urllib.request
        if __name__ == "__main__":
            from gunicorn.app.base import BaseApplication
            def application(environ, start_response):
                work(environ["PATH_INFO"])
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [str(os.getpid()).encode()]
            def client(server):
                def ask():
                    port = server.LISTENERS[0].sock.getsockname()[1]
                    for n in range(10):
                        urllib.request.urlopen(f"http://127.0.0.1:{port}/{n}", timeout=20).read()
                    os.kill(os.getpid(), signal.SIGTERM)
                threading.Thread(target=ask, daemon=True).start()
            class App(BaseApplication):
                def load_config(self):
                    for name, value in {"bind": "127.0.0.1:0", "workers": 2, "when_ready": client, "loglevel": "error",
                                        "control_socket_disable": True}.items():
                        if name in self.cfg.settings: self.cfg.set(name, value)
                def load(self):
                    return application
            work("parent before")
            App().run()
    """
    ended = launch(
        _program(program),
        OTEL_EXPORTER_OTLP_ENDPOINT=backend.endpoint,
        OTEL_BLRP_SCHEDULE_DELAY="100",
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
    )
    assert (ended.code, ended.err) == (0, "")
    assert _done(backend) == Counter({f"done {name}": 1 for name in ["parent before", *(f"/{n}" for n in range(10))]})
    assert _seen(backend) == 41 * 11


ORDERS = """
    import asyncio, concurrent.futures, logging, multiprocessing, os, signal, subprocess, sys, threading, time, warnings
    from opentelemetry import trace
    warnings.simplefilter("ignore")  # from 3.12 on, forking while there are threads brings one
    logging.getLogger().addHandler(logging.NullHandler())

    def order(n):
        with trace.get_tracer("shop").start_as_current_span(f"order {n}"):
            logging.getLogger("shop").warning("order %d", n)

    flushed = set()
    def orders(start, count=10):
        for n in range(start, start + count):
            order(n)
            # Nothing is under way when a child ends: of that, nobody could tell whether it arrived.
            if os.getpid() not in flushed:
                flushed.add(os.getpid())
                assert trace.get_tracer_provider().force_flush()
        return os.getpid()

    def fork(work):
        child = os.fork()
        if child == 0:
            work()
            os._exit(0)
        return child

    def die():
        os.kill(os.getpid(), signal.SIGKILL)
"""

FORKS = {
    # Orders are numbered from 0 without a gap; `total` is how many there are.
    "a storm": """
        total = 220
        orders(0)
        children = [fork(lambda: (orders(10 + n * 10))) for n in range(20)]
        for child in children: os.waitpid(child, 0)
        orders(210)
    """,
    "a storm among threads": """
        total = 220
        at, lock = 0, threading.Lock()
        def some():
            global at
            for _ in range(10):
                with lock: n, at = at, at + 1
                order(n)
                time.sleep(0.01)
        threads = [threading.Thread(target=some) for _ in range(2)]
        for thread in threads: thread.start()
        children = [fork(lambda: (orders(20 + n * 10))) for n in range(20)]
        for child in children: os.waitpid(child, 0)
        for thread in threads: thread.join()
    """,
    "children of children": """
        total = 60
        def deeper(n):
            orders(n * 10)
            if n < 5: os.waitpid(fork(lambda: deeper(n + 1)), 0)
        deeper(0)
    """,
    "children whose parent is gone": """
        total = 30
        def first():
            orders(10)
            fork(lambda: (time.sleep(0.5), orders(20)))
        orders(0)
        os.waitpid(fork(first), 0)
        time.sleep(1.5)
    """,
    "children that are killed": """
        total = 60
        orders(0)
        children = [fork(lambda: (orders(10 + n * 10), die())) for n in range(5)]
        for child in children: os.waitpid(child, 0)
    """,
    "a child that outlives its parent, which is killed": """
        total = 20
        orders(0)
        fork(lambda: (time.sleep(0.3), orders(10), sys.exit()))
        die()
    """,
    "a fork in every state of the parent": """
        total = 300
        for n in range(0, 300, 20):
            orders(n)
            child = fork(lambda: orders(n + 10))
            trace.get_tracer_provider().force_flush()
            os.waitpid(child, 0)
    """,
    "a child in the middle of a span": """
        total = 2
        with trace.get_tracer("shop").start_as_current_span("order 0"):
            child = fork(lambda: order(1))
            os.waitpid(child, 0)
            logging.getLogger("shop").warning("order 0")
    """,
    "a child that becomes another program": """
        total = 20
        orders(0)
        os.waitpid(fork(lambda: (orders(10), os.execv(sys.executable, [sys.executable, "-c", ""]))), 0)
    """,
    "subprocesses": """
        total = 40
        def run(n):
            subprocess.run([sys.executable, "-c", "print()"], check=True, capture_output=True,
                           preexec_fn=None if n % 2 else lambda: None)
            orders(n * 10)
        with concurrent.futures.ThreadPoolExecutor(4) as pool: list(pool.map(run, range(4)))
    """,
    "subprocesses of asyncio": """
        total = 40
        async def run(n):
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
            await asyncio.to_thread(orders, n * 10)
            await process.wait()
        async def main():
            await asyncio.gather(*(run(n) for n in range(4)))
        asyncio.run(main())
    """,
    **{
        f"a pool by {method}": f"""
        total = 60
        if __name__ == "__main__":
            context = multiprocessing.get_context("{method}")
            with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
                for _ in pool.map(orders, range(0, 30, 10)): pass
            with context.Pool(2, maxtasksperchild=1) as pool:
                for _ in pool.imap_unordered(orders, range(30, 60, 10)): pass
        """
        for method in ("fork", "spawn", "forkserver")
    },
    "processes that are ended": """
        total = 40
        def work(n):
            orders(n)
            time.sleep(30)
        orders(0)
        children = [multiprocessing.get_context("fork").Process(target=work, args=(n,)) for n in (10, 20, 30)]
        for child in children: child.start()
        time.sleep(0.5)
        for child in children: child.kill() if child is children[0] else child.terminate()
        for child in children: child.join()
    """,
    "daemons that are left alone": """
        total = 20
        def work():
            orders(10)
            time.sleep(30)
        orders(0)
        multiprocessing.get_context("fork").Process(target=work, daemon=True).start()
        time.sleep(0.5)
    """,
}


@pytest.mark.parametrize("case", FORKS)
def test_nothing_is_lost_or_doubled_or_left(
    launch: Launch, backend: Backend, tmp_path: Path, quick_start: dict[str, str], case: str
) -> None:
    """Whatever the children do, each record and each span arrives once; at the latest the next start sends them."""
    spool = tmp_path / "spool"
    environ = {
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_BLRP_SCHEDULE_DELAY": "60000",
        "OTEL_EXPORTER_OTLP_ENDPOINT": backend.endpoint,
        "OTEL_METRICS_EXPORTER": "none",
        "WEIR_LOG_SAMPLING": "off",
        "WEIR_SPOOL_DIR": str(spool),
        "WEIR_SHUTDOWN_TIMEOUT": "20",
        **quick_start,
    }
    program = textwrap.dedent(ORDERS) + textwrap.dedent(FORKS[case])
    ended = launch(program, **environ)
    killed = "parent, which is killed" in case
    assert (ended.code, ended.err) == (-9 if killed else 0, "")
    if killed:
        backend.wait_for(lambda: any(span.name == "order 19" for span in backend.spans))
        launch("", **environ)
    total = int(FORKS[case].split("total = ")[1].split()[0])
    once = Counter(f"order {n}" for n in range(total))
    assert Counter(log.body for log in backend.logs if log.scope == "shop") == once
    assert Counter(span.name for span in backend.spans if span.scope == "shop") == once
    assert [path.name for path in spool.iterdir() if path.is_dir()] == []
