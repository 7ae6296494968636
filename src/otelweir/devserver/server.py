"""The local backend, running: the application on a socket, in a thread of its own."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from otelweir.devserver.store import Store
from otelweir.errors import HOST_UNUSABLE, NO_TEMPORARY_FOLDER, PORT_IN_USE, MissingExtra, ServerError

if TYPE_CHECKING:
    import uvicorn

HOST = "127.0.0.1"
PORT = 4318
"""Where OpenTelemetry's exporters send to over HTTP unless told otherwise."""

# Connections beyond this many get a 503, which exporters take as "later".
_MAX_CONNECTIONS = 512
_STOP_TIMEOUT_S = 3


class DevServer:
    """Receives OTLP over HTTP and keeps it; a context manager.

    Args:
        host: The address to listen on.
        port: The port; 0 takes any that is free, and `port` tells which.
        db: The database file; None for a temporary one that goes when the server stops.
        max_body_bytes: The largest request body taken, as sent and as unpacked.

    Attributes:
        store: What arrived.

    Raises:
        MissingExtra: starlette or uvicorn is not installed.
        ServerError: The host or the port cannot be had, or the database cannot be opened.
    """

    def __init__(
        self,
        port: int = PORT,
        host: str = HOST,
        db: Path | str | None = None,
        max_body_bytes: int | None = None,
    ) -> None:
        try:
            import uvicorn

            from otelweir.devserver.app import MAX_BODY_BYTES, create_app
        except ModuleNotFoundError as error:
            raise MissingExtra("dev", str(error.name)) from None
        self.host = host
        self._socket = _listen(host, port)
        self._address: str
        self.port: int
        self._address, self.port = self._socket.getsockname()[:2]
        try:
            self.store = Store(db)
        except BaseException as error:
            self._socket.close()
            if db is None and isinstance(error, OSError):
                raise ServerError(NO_TEMPORARY_FOLDER, str(error)) from None
            raise
        app = create_app(self.store, MAX_BODY_BYTES if max_body_bytes is None else max_body_bytes)
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,  # logging belongs to the process we are in
            log_level="critical",
            access_log=False,
            server_header=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=_STOP_TIMEOUT_S,
        )
        self._up = threading.Event()
        self._server = _server(config, self._up.set)
        self._thread = threading.Thread(target=self._run, name="weir-dev", daemon=True)
        self._stopped = False

    @property
    def url(self) -> str:
        """The endpoint to give to exporters, such as http://127.0.0.1:4318."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - shown, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def is_exposed(self) -> bool:
        """Whether other machines may reach it."""
        address = self._address.partition("%")[0]
        return not ipaddress.ip_address(address).is_loopback

    def start(self) -> None:
        """Begin to answer; returns when it does."""
        self._thread.start()
        self._up.wait()

    def stop(self) -> None:
        """Answer what is under way, commit it, close the database. Twice does no harm."""
        if self._stopped:
            return
        self._stopped = True
        self.drain()
        self.store.close()

    def drain(self) -> None:
        """Answer what is under way and stop listening; the store stays open for questions."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()

    def __enter__(self) -> DevServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<DevServer {self.url} {'stopped' if self._stopped else 'up' if self._up.is_set() else 'not started'}>"

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._up.set()  # so that nobody waits for a server that failed


def _server(config: uvicorn.Config, up: Callable[[], None]) -> uvicorn.Server:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            up()

    return Server(config)


def _listen(host: str, port: int) -> socket.socket:
    # Bound here rather than by uvicorn, whose answer to a port in use is a log line and an exit.
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError):  # the latter for what cannot be a name at all
        raise ServerError(HOST_UNUSABLE, f"cannot listen on {host}: the host name cannot be resolved") from None
    try:
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(host, port, error) from None
    try:
        if os.name == "posix":  # elsewhere it would let two servers share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Two sockets may be bound to a port with that option; only one may listen.
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from None
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> ServerError:
    what = "something listens already" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
    problem = HOST_UNUSABLE if error.errno == errno.EADDRNOTAVAIL else PORT_IN_USE
    return ServerError(problem, f"cannot listen on {host}:{port}: {what}")
