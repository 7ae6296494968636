"""Flask under werkzeug's server with its reloader's logger, and under gunicorn with two threads: wrapped loggers."""

# needs: flask gunicorn
# mypy: ignore-errors
# ruff: noqa: UP032
import contextlib
import http.client
import logging
import os
import signal
import threading
import time

from flask import Flask, abort
from gunicorn.app.base import BaseApplication
from werkzeug.serving import make_server

app = Flask("shop")


@app.get("/item/<int:number>")
def item(number):
    app.logger.info("Item %d asked for", number)
    if number % 9 == 8:
        return str(1 / 0)
    if number % 9 == 7:
        abort(403)
    app.logger.debug("Price of item {} is {:.2f}".format(number, number * 1.1))
    return str(number)


def drive(port: int) -> None:
    for number in range(40):
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", f"/item/{number}" if number % 5 else f"/absent/{number}")
            connection.getresponse().read()
            connection.close()
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.putrequest("BAD METHOD", "nonsense")
        connection.endheaders()
        connection.getresponse().read()


class Gunicorn(BaseApplication):
    def load_config(self):
        for name, value in {
            "bind": "127.0.0.1:0",
            "workers": 2,
            "threads": 2,
            "accesslog": "-",
            "errorlog": "gunicorn.log",
            "loglevel": "debug",
            "graceful_timeout": 1,
            "when_ready": ready,
            "control_socket_disable": True,
        }.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self):
        return app


def ready(arbiter) -> None:
    port = arbiter.LISTENERS[0].getsockname()[1]

    def later() -> None:
        time.sleep(1)
        drive(port)
        os.kill(os.getpid(), signal.SIGTTIN)
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=later, daemon=True).start()


if __name__ == "__main__":
    app.logger.setLevel(logging.DEBUG)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    drive(server.server_port)
    server.shutdown()
    Gunicorn().run()
