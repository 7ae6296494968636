"""requests and urllib3 against a local server: redirects, retries, timeouts, gzip, errors, a pool that is too small."""

# needs: requests
# mypy: ignore-errors
import contextlib
import gzip
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        headers = {}
        status, body = 200, b"hello " * 20
        if path.startswith("/redirect"):
            status, headers["Location"] = 302, "/items/1"
        elif path.startswith("/busy"):
            status, headers["Retry-After"] = 503, "0"
        elif path.startswith("/gone"):
            self.close_connection = True
            return
        elif path.startswith("/slow"):
            time.sleep(0.3)
        elif path.startswith("/gzip"):
            body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
        elif path.startswith("/missing"):
            status = 404
        elif path.startswith("/cookie"):
            headers["Set-Cookie"] = "a=b; expires=never; path=/"
        elif path.startswith("/close"):
            headers["Connection"] = "close"
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    do_POST = do_PUT = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    session = requests.Session()
    retry = Retry(3, status_forcelist=[503], backoff_factor=0.001, allowed_methods=None)
    session.mount("http://", HTTPAdapter(pool_connections=2, pool_maxsize=2, max_retries=retry))
    for number in range(60):
        session.get(f"{base}/items/{number}?page={number % 7}", timeout=5)
        session.post(f"{base}/items/{number}", json={"n": number}, timeout=5)
    for number in range(8):
        for path in ("redirect", "busy", "gone", "gzip", "missing", "cookie", "close"):
            with contextlib.suppress(requests.RequestException):
                session.get(f"{base}/{path}/{number}", timeout=5)
        with contextlib.suppress(requests.RequestException):
            session.get(f"{base}/slow/{number}", timeout=0.05)
    for _ in range(10):
        with contextlib.suppress(requests.RequestException):
            session.get("http://127.0.0.1:1/", timeout=1)
        requests.get(f"{base}/once", timeout=5)
    # More threads than the pool holds.
    pool = urllib3.PoolManager(maxsize=1, block=False)
    threads = [threading.Thread(target=pool.request, args=("GET", f"{base}/slow/{n}")) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.request("GET", f"{base}/redirect/1")
    server.shutdown()


if __name__ == "__main__":
    main()
