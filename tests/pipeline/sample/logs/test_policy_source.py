"""Where policies come from: real files, a real HTTP server, a real fork."""

from __future__ import annotations

import email.utils
import gzip
import json
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from otelweir import errors
from otelweir.pipeline.sample.logs.policy_cache import PolicyCache, default_folder
from otelweir.pipeline.sample.logs.policy_fetch import Answer, Failed, Fetch, Fetched, Unchanged, fetch
from otelweir.pipeline.sample.logs.policy_file import PolicyFile
from otelweir.pipeline.sample.logs.policy_source import POLL_S, PolicySource
from otelweir.pipeline.sample.logs.policy_url import PolicyUrl
from otelweir.pipeline.sample.logs.rules import Rules
from otelweir.pipeline.sample.logs.settings import LogSamplingSettings

BASE = Rules.of(LogSamplingSettings())
KEY = "s3cr3t-k3y"


def eventually(condition: Callable[[], object], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The warnings so far."""
    caplog.set_level(logging.WARNING, "otelweir")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "otelweir"]


@contextmanager
def nobody() -> Iterator[None]:
    """Root may read everything."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


class TestFile:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "policy.yaml"
        path.write_text("first: 3\n")
        return path

    @pytest.fixture
    def file(self, path: Path) -> PolicyFile:
        file = PolicyFile(str(path))
        assert file.look()
        return file

    @staticmethod
    def first(file: PolicyFile) -> int | None:
        assert file.overlay is not None
        return file.overlay.first

    def test_a_file_that_stays_changes_nothing(self, file: PolicyFile) -> None:
        assert not file.look()
        assert self.first(file) == 3

    def test_a_file_written_in_place_is_read_again(self, file: PolicyFile, path: Path) -> None:
        path.write_text("first: 4\n")
        assert file.look()
        assert self.first(file) == 4

    def test_a_change_within_one_step_of_the_file_clock_is_seen(self, file: PolicyFile, path: Path) -> None:
        """Same size, and at once: the times of the file may be the same."""
        for number in range(1, 10):
            path.write_text(f"first: {number}\n")
            file.look()
            assert self.first(file) == number

    def test_a_file_moved_over_the_old_one_is_read(self, file: PolicyFile, path: Path) -> None:
        new = path.with_name("new")
        new.write_text("first: 5\n")
        os.utime(new, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
        new.rename(path)
        assert file.look()
        assert self.first(file) == 5

    def test_a_symbolic_link_turned_to_another_folder_is_seen(self, tmp_path: Path) -> None:
        """As Kubernetes updates a ConfigMap: the file's own link never changes."""
        for number in (1, 2):
            (tmp_path / f"..v{number}").mkdir()
            (tmp_path / f"..v{number}" / "policy.yaml").write_text(f"first: {number}\n")
        (tmp_path / "..data").symlink_to("..v1")
        (tmp_path / "policy.yaml").symlink_to("..data/policy.yaml")
        file = PolicyFile(str(tmp_path / "policy.yaml"))
        assert file.look()
        (tmp_path / "..tmp").symlink_to("..v2")
        (tmp_path / "..tmp").rename(tmp_path / "..data")
        assert file.look()
        assert self.first(file) == 2

    def test_a_file_that_is_gone_keeps_the_last_good_policy_and_is_taken_back(
        self, file: PolicyFile, path: Path, said: Callable[[], list[str]]
    ) -> None:
        path.unlink()
        assert not file.look()
        assert not file.look()
        assert self.first(file) == 3
        assert [line.startswith(f"WEIR-POLICY-001: {path}: No such file") for line in said()] == [True]
        path.write_text("first: 3\n")
        assert not file.look()
        path.unlink()
        file.look()
        assert len(said()) == 2

    def test_a_bad_file_keeps_the_last_good_policy_and_names_the_line(
        self, file: PolicyFile, path: Path, said: Callable[[], list[str]]
    ) -> None:
        path.write_text("\nfirst: 0\n")
        assert not file.look()
        assert self.first(file) == 3
        (line,) = said()
        assert line.startswith(f"WEIR-POLICY-002: {path}:2: first: 0 is not a whole number")

    def test_the_same_mistake_made_again_is_told_again(
        self, file: PolicyFile, path: Path, said: Callable[[], list[str]]
    ) -> None:
        for text in ("first: 0", "first: 3", "first: 0", "first: -1", "first: 0"):
            path.write_text(text)
            file.look()
            file.look()
        assert len(said()) == 4

    def test_the_same_policy_in_other_words_is_no_change(self, file: PolicyFile, path: Path) -> None:
        path.write_text("# the same\nfirst: 3")
        assert not file.look()

    @pytest.mark.parametrize("kind", ["folder", "pipe", "nul"])
    def test_what_is_not_a_file_is_told(self, tmp_path: Path, said: Callable[[], list[str]], kind: str) -> None:
        """A pipe must not make the thread wait for a writer."""
        path = str(tmp_path / "policy")
        if kind == "folder":
            Path(path).mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path += "\0"
        assert not PolicyFile(path).look()
        assert "WEIR-POLICY-001" in said()[0]

    def test_a_file_without_permission_is_told(
        self, file: PolicyFile, path: Path, said: Callable[[], list[str]]
    ) -> None:
        path.write_text("first: 4")
        path.chmod(0)
        with nobody():
            assert not file.look()
        assert "Permission denied" in said()[0]
        assert self.first(file) == 3


Reply = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """An HTTP server on loopback that answers as the test says, and remembers what was asked."""

    def __init__(self) -> None:
        self.reply: Reply = ok(b"first: 3\n")
        self.asked: list[dict[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(
                    {"path": self.path, **{name.lower(): value for name, value in self.headers.items()}}
                )
                try:
                    server.reply(self)
                except OSError:
                    pass  # the client went away

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    pass  # the client did not like the certificate

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/policy.yaml"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def use_tls(self, certificate: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def ok(body: bytes, status: int = 200, **headers: str) -> Reply:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return reply


def versioned(body: bytes, etag: str) -> Reply:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        if handler.headers.get("If-None-Match") == etag:
            ok(b"", 304, ETag=etag)(handler)
        else:
            ok(body, ETag=etag)(handler)

    return reply


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    yield server
    server.close()


class TestFetch:
    def test_a_policy_comes_with_its_etag(self, server: Server) -> None:
        server.reply = versioned(b"first: 3", '"v1"')
        assert fetch(server.url, None, None) == Fetched(b"first: 3", '"v1"')
        assert fetch(server.url, '"v1"', None) == Unchanged()
        assert server.asked[1]["if-none-match"] == '"v1"'

    def test_the_key_goes_as_a_bearer_token(self, server: Server) -> None:
        fetch(server.url, None, KEY)
        assert server.asked[0]["authorization"] == f"Bearer {KEY}"

    def test_user_and_password_in_the_url_go_as_basic_auth(self, server: Server) -> None:
        fetch(server.url.replace("//", "//user:p%40ss@"), None, None)
        assert server.asked[0]["authorization"] == "Basic dXNlcjpwQHNz"

    def test_gzip_is_unpacked(self, server: Server) -> None:
        server.reply = ok(gzip.compress(b"first: 3"), Content_Encoding="gzip")
        assert fetch(server.url, None, None) == Fetched(b"first: 3", None)

    def test_a_strange_etag_is_not_sent_back(self, server: Server) -> None:
        server.reply = ok(b"first: 3", ETag="no quotes")
        assert fetch(server.url, None, None) == Fetched(b"first: 3", None)

    @pytest.mark.parametrize(
        ("reply", "why"),
        [
            (ok(b"", 401), "it answers 401: the key (WEIR_POLICY_KEY) is missing or not accepted"),
            (ok(b"", 403), "it answers 403: the key (WEIR_POLICY_KEY) is missing or not accepted"),
            (ok(b"", 404), "it answers 404 Not Found"),
            (ok(b"", 500), "it answers 500 Internal Server Error"),
            (ok(b"", 304), "it answers 304 Not Modified"),
            (ok(b"", 204), "it answers 204 No Content"),
            (ok(b"fir", Content_Length="50", Connection="close"), "the answer ended too early"),
            (ok(b"x" * (2**20 + 1)), "the answer is longer than 1,048,576 bytes"),
            (
                ok(gzip.compress(b"\0" * 50 * 2**20), Content_Encoding="gzip"),
                "the answer is longer than 1,048,576 bytes when unpacked",
            ),
            (ok(gzip.compress(b"first: 3")[:-9], Content_Encoding="gzip"), "the answer ended too early"),
            (ok(b"first: 3", Content_Encoding="gzip"), "the answer is not the gzip it says it is"),
            (
                ok(zlib.compress(b"first: 3"), Content_Encoding="br"),
                "the answer has the encoding 'br', which was not asked for",
            ),
            (
                ok(b"", 302, Location="http://localhost:9/policy?token=x"),
                "it redirects to http://localhost:9/policy, another host; name that URL instead",
            ),
            (ok(b"", 302, Location="/again"), "it redirects more than 3 times"),
            (ok(b"", 302, Location="file:///etc/passwd"), None),
        ],
    )
    def test_what_is_no_policy_has_a_reason(self, server: Server, reply: Reply, why: str | None) -> None:
        server.reply = reply
        answer = fetch(server.url, None, KEY)
        assert isinstance(answer, Failed)
        if why is not None:
            assert answer.why == why

    def test_a_redirect_on_the_same_host_is_followed(self, server: Server) -> None:
        def reply(handler: BaseHTTPRequestHandler) -> None:
            (ok(b"", 307, Location="/new") if handler.path != "/new" else ok(b"first: 3"))(handler)

        server.reply = reply
        assert fetch(server.url, None, KEY) == Fetched(b"first: 3", None)
        assert [asked["path"] for asked in server.asked] == ["/policy.yaml", "/new"]
        assert server.asked[1]["authorization"] == f"Bearer {KEY}"

    def test_the_key_does_not_follow_to_another_host(self, server: Server) -> None:
        other = Server()
        server.reply = ok(b"", 302, Location=other.url)
        fetch(server.url, None, KEY)
        assert other.asked == []
        other.close()

    def test_retry_after_is_read_as_seconds_and_as_a_date(self, server: Server) -> None:
        server.reply = ok(b"", 503, Retry_After="120")
        assert fetch(server.url, None, None) == Failed("it answers 503 Service Unavailable", 120.0)
        server.reply = ok(b"", 429, Retry_After=email.utils.formatdate(time.time() + 1000, usegmt=True))
        answer = fetch(server.url, None, None)
        assert isinstance(answer, Failed)
        assert answer.after_s is not None
        assert 0 < answer.after_s <= 1000
        server.reply = ok(b"", 503, Retry_After="999999999")
        assert fetch(server.url, None, None) == Failed("it answers 503 Service Unavailable", 3600.0)
        server.reply = ok(b"", 503, Retry_After="soon")
        assert fetch(server.url, None, None) == Failed("it answers 503 Service Unavailable", None)

    @pytest.mark.parametrize("where", ["head", "body"])
    def test_an_answer_that_drips_ends_at_the_deadline(self, server: Server, where: str) -> None:
        """The timeout of a socket begins anew with every byte."""
        gone = threading.Event()

        def drip(handler: BaseHTTPRequestHandler) -> None:
            handler.wfile.write(b"HTTP/1.0 200 OK\r\n" + (b"\r\n" if where == "body" else b"X-Drip: "))
            try:
                while not gone.wait(0.02):
                    handler.wfile.write(b"a")
            except OSError:
                gone.set()

        server.reply = drip
        assert fetch(server.url, None, None, timeout_s=0.3) == Failed("no complete answer within 0.3 s")
        eventually(gone.is_set)

    def test_a_server_that_says_nothing_or_nonsense_has_a_reason(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
            assert fetch(url, None, None, timeout_s=0.2) == Failed("no complete answer within 0.2 s")
        assert fetch(url, None, None) == Failed("Connection refused")

    @pytest.mark.parametrize(
        "url",
        ["ftp://x/", "http://", "http:///x", "http://[::1", "http://h:port/", "http://a b/", "http://\udcff/", "x"],
    )
    def test_a_url_that_is_none_has_a_reason(self, url: str) -> None:
        assert isinstance(fetch(url, None, None, timeout_s=0.5), Failed)

    @pytest.mark.parametrize("key", ["line\rbreak", "schlüssel", "\x00"])
    def test_a_key_that_no_header_carries_does_not_show(self, server: Server, key: str) -> None:
        assert fetch(server.url, None, key) == Failed("the key has characters that a header cannot carry")

    @pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
    def test_https_checks_the_certificate(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        certificate = tmp_path / "certificate.pem"
        subprocess.run(
            f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
            f"-addext subjectAltName=DNS:localhost -keyout {certificate} -out {tmp_path / 'c'}".split(),
            check=True,
            capture_output=True,
        )
        certificate.write_text(certificate.read_text() + (tmp_path / "c").read_text())
        server.use_tls(certificate)
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        answer = fetch(url, None, KEY)
        assert isinstance(answer, Failed)
        assert answer.why.startswith("its certificate is not accepted: self")
        assert server.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert fetch(url, None, KEY) == Fetched(b"first: 3\n", None)


class TestCache:
    @pytest.fixture
    def cache(self, tmp_path: Path) -> PolicyCache:
        return PolicyCache(str(tmp_path / "a" / "otelweir"), "https://example.com/p?token=x", wall=lambda: 5.0)

    @staticmethod
    def files(tmp_path: Path) -> list[Path]:
        return sorted((tmp_path / "a" / "otelweir").iterdir())

    def test_what_is_stored_is_loaded(self, cache: PolicyCache) -> None:
        assert cache.load() is None
        assert cache.store("first: 3 # ü".encode(), '"v1"')
        loaded = cache.load()
        assert loaded is not None
        assert (loaded.body, loaded.etag, loaded.fetched_s) == ("first: 3 # ü".encode(), '"v1"', 5.0)

    def test_only_the_owner_may_look(self, cache: PolicyCache, tmp_path: Path) -> None:
        cache.store(b"first: 3", None)
        (file,) = self.files(tmp_path)
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700
        assert "token" not in file.name + file.read_text()

    def test_each_url_has_its_file(self, cache: PolicyCache, tmp_path: Path) -> None:
        other = PolicyCache(str(tmp_path / "a" / "otelweir"), "https://example.com/other")
        cache.store(b"first: 3", None)
        other.store(b"first: 4", None)
        assert len(self.files(tmp_path)) == 2

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"{}",
            b"null",
            b'{"version":1,"body":3,"etag":null}',
            b"\xff",
            b"[" * 100_000,
            b"9" * 10**6,
        ],
    )
    def test_a_corrupt_file_is_set_aside_and_never_deleted(
        self, cache: PolicyCache, tmp_path: Path, said: Callable[[], list[str]], content: bytes
    ) -> None:
        for round_ in (1, 2):
            cache.store(b"first: 3", None)
            file = next(path for path in self.files(tmp_path) if path.suffix == ".json")
            file.write_bytes(content)
            assert cache.load() is None
            asides = [path for path in self.files(tmp_path) if path.suffix == ".corrupt"]
            assert [path.read_bytes() for path in asides] == [content] * round_
            assert not file.exists()
        assert [line.startswith("WEIR-POLICY-004") for line in said()] == [True, True]

    def test_a_changed_body_is_noticed(self, cache: PolicyCache, tmp_path: Path) -> None:
        cache.store(b"first: 3", None)
        (file,) = self.files(tmp_path)
        file.write_text(file.read_text().replace("first: 3", "first: 4"))
        assert cache.load() is None

    def test_a_place_that_cannot_be_written_is_told_once(self, tmp_path: Path, said: Callable[[], list[str]]) -> None:
        (tmp_path / "file").write_text("")
        cache = PolicyCache(str(tmp_path / "file" / "folder"), "u")
        assert cache.load() is None
        assert not cache.store(b"first: 3", None)
        assert not cache.store(b"first: 4", None)
        assert len(said()) <= 2
        assert all("WEIR-POLICY-004" in line for line in said())

    def test_nothing_half_written_is_left(self, cache: PolicyCache, tmp_path: Path) -> None:
        for number in range(5):
            cache.store(b"first: %d" % number, None)
        assert len(self.files(tmp_path)) == 1

    def test_the_default_folder_follows_xdg(self) -> None:
        assert default_folder({"XDG_CACHE_HOME": "/x"}) == "/x/otelweir"
        assert default_folder({"XDG_CACHE_HOME": "relative"}) == default_folder({}) == "~/.cache/otelweir"


class Script:
    """A fetcher with prepared answers; the last one stays."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str | None, str | None]] = []

    def __call__(self, url: str, etag: str | None, key: str | None) -> Answer:
        self.asked.append((url, etag, key))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def from_url(
    fetch_: Fetch,
    folder: Path,
    *,
    url: str = "https://u:pw@example.com/policy.yaml?token=x",
    quiet: Callable[[], AbstractContextManager[object]] = nullcontext,
    random: Callable[[], float] = lambda: 0.5,
) -> PolicyUrl:
    return PolicyUrl(url, KEY, 300.0, PolicyCache(str(folder), url), fetch_, quiet, random)


class TestUrl:
    def test_the_wait_is_jittered_by_a_tenth(self, tmp_path: Path) -> None:
        for chance, expected in ((0.0, 270.0), (0.5, 300.0), (1.0, 330.0)):
            url = from_url(Script(Fetched(b"first: 3", None)), tmp_path, random=lambda chance=chance: chance)  # type: ignore[misc]
            changed, wait_s = url.ask()
            assert changed
            assert wait_s == pytest.approx(expected)

    def test_after_failures_it_asks_sooner_and_backs_off(self, tmp_path: Path) -> None:
        url = from_url(Script(Failed("no")), tmp_path)
        assert [url.ask()[1] for _ in range(8)] == pytest.approx([5, 10, 20, 40, 80, 160, 300, 300])

    def test_a_success_ends_the_backing_off(self, tmp_path: Path) -> None:
        url = from_url(Script(Failed("no"), Failed("no"), Fetched(b"{}", None), Failed("no")), tmp_path)
        assert [url.ask()[1] for _ in range(4)] == pytest.approx([5, 10, 300, 5])

    def test_retry_after_is_honoured(self, tmp_path: Path) -> None:
        url = from_url(Script(Failed("busy", 120.0)), tmp_path, random=lambda: 0.0)
        assert url.ask()[1] >= 120.0

    def test_the_etag_of_the_last_good_policy_is_sent(self, tmp_path: Path) -> None:
        script = Script(Fetched(b"first: 3", '"1"'), Fetched(b"first: 0", '"2"'), Unchanged())
        url = from_url(script, tmp_path)
        assert [url.ask()[0] for _ in range(3)] == [True, False, False]
        assert [etag for _, etag, _ in script.asked] == [None, '"1"', '"1"']
        assert url.overlay is not None
        assert url.overlay.first == 3

    def test_an_invalid_policy_keeps_the_last_good_one_and_names_the_line(
        self, tmp_path: Path, said: Callable[[], list[str]]
    ) -> None:
        url = from_url(Script(Fetched(b"first: 3", None), Fetched(b"\nfirst: 0", None)), tmp_path)
        url.ask()
        assert url.ask()[0] is False
        assert url.overlay is not None
        assert url.overlay.first == 3
        assert said()[0].startswith("WEIR-POLICY-002: https://example.com/policy.yaml:2: first: 0 is not")

    def test_a_restart_has_the_last_good_policy_without_the_network(self, tmp_path: Path) -> None:
        from_url(Script(Fetched(b"first: 3", '"1"'), Fetched(b"first: 0", '"2"')), tmp_path).ask()
        script = Script(Unchanged())
        again = from_url(script, tmp_path)
        assert again.recall()
        assert again.overlay is not None
        assert again.overlay.first == 3
        assert script.asked == []
        again.ask()
        assert script.asked[0][1] == '"1"'

    def test_a_cached_policy_that_is_not_valid_any_more_is_set_aside(
        self, tmp_path: Path, said: Callable[[], list[str]]
    ) -> None:
        url = from_url(Script(Failed("no")), tmp_path)
        url._cache.store(b"first: 0", None)
        assert not url.recall()
        assert [path.suffix for path in tmp_path.iterdir()] == [".corrupt"]
        assert "WEIR-POLICY-004" in said()[0]

    def test_the_same_answer_is_not_written_to_the_disk_again(self, tmp_path: Path) -> None:
        url = from_url(Script(Fetched(b"first: 3", None)), tmp_path)
        url.ask()
        (file,) = tmp_path.iterdir()
        file.unlink()
        url.ask()
        assert list(tmp_path.iterdir()) == []

    def test_the_request_is_made_in_quiet(self, tmp_path: Path) -> None:
        """What suppresses instrumentation is there while the request runs, and only then."""
        inside: list[bool] = []
        quiet = False

        @contextmanager
        def hush() -> Iterator[None]:
            nonlocal quiet
            quiet = True
            yield
            quiet = False

        def asking(url: str, etag: str | None, key: str | None) -> Answer:
            inside.append(quiet)
            return Failed("no")

        from_url(asking, tmp_path, quiet=hush).ask()
        assert inside == [True]
        assert not quiet

    def test_secrets_do_not_show(self, tmp_path: Path, said: Callable[[], list[str]], server: Server) -> None:
        server.reply = ok(b"", 401)
        url = f"{server.url}?token=t0k3n".replace("//", "//user:pa55@")
        real = from_url(fetch, tmp_path, url=url)
        real.ask()
        server.reply = ok(b"first: 0")
        real.ask()
        server.reply = ok(b"first: 3")
        real.ask()
        server.close()
        real.ask()
        shown = "\n".join([*said(), repr(real), repr(PolicySource(BASE, print, url=real)), str(vars(real))])
        assert len(said()) == 3
        assert KEY not in shown
        assert "pa55" not in "\n".join([*said(), repr(real)])
        assert "t0k3n" not in "\n".join([*said(), repr(real)])


class Told:
    def __init__(self) -> None:
        self.rules: list[Rules] = []

    def __call__(self, rules: Rules) -> None:
        self.rules.append(rules)


class TestSource:
    @pytest.fixture
    def told(self) -> Told:
        return Told()

    def test_url_over_file_over_settings(self, tmp_path: Path, told: Told) -> None:
        path = tmp_path / "policy.yaml"
        path.write_text("first: 3\nbudget: 7\nrules: [{logger: a, rate: 0.5}]")
        url = from_url(Script(Fetched(b"first: 4\nrules: [{logger: a, rate: 0.6}]", None)), tmp_path / "cache")
        source = PolicySource(BASE, told, file=PolicyFile(str(path)), url=url)
        source.turn()
        rules = told.rules[-1]
        assert (rules.first, rules.budget_per_s, rules.window_s) == (4, 7.0, BASE.window_s)
        assert rules.ruling("x", "t", "info", "a").rate == 0.6
        assert source.rules == rules

    def test_turns_look_every_second_and_ask_when_it_is_time(self, tmp_path: Path, told: Told) -> None:
        path = tmp_path / "policy.yaml"
        path.write_text("first: 3")
        now = 100.0
        script = Script(Fetched(b"{}", None))
        url = from_url(script, tmp_path / "cache")
        source = PolicySource(BASE, told, file=PolicyFile(str(path)), url=url, clock=lambda: now)
        assert source.turn() == POLL_S
        now += 299
        source.turn()
        assert len(script.asked) == 1
        now += 2
        source.turn()
        assert len(script.asked) == 2

    def test_without_a_file_it_sleeps_until_the_next_question(self, tmp_path: Path, told: Told) -> None:
        source = PolicySource(BASE, told, url=from_url(Script(Failed("no")), tmp_path), clock=lambda: 0.0)
        assert source.turn() == pytest.approx(5.0)

    def test_what_is_on_the_disk_applies_when_start_returns(self, tmp_path: Path, told: Told) -> None:
        path = tmp_path / "policy.yaml"
        path.write_text("first: 3")
        from_url(Script(Fetched(b"budget: 7", None)), tmp_path / "cache").ask()
        asked = threading.Event()

        def waiting(url: str, etag: str | None, key: str | None) -> Answer:
            asked.set()
            return Failed("no")

        url = from_url(waiting, tmp_path / "cache")
        source = PolicySource(BASE, told, file=PolicyFile(str(path)), url=url)
        source.start()
        try:
            assert [(rules.first, rules.budget_per_s) for rules in told.rules] == [(3, 7.0)]
            eventually(asked.is_set)
        finally:
            source.stop()

    def test_the_thread_brings_changes_of_file_and_url(self, tmp_path: Path, told: Told, server: Server) -> None:
        path = tmp_path / "policy.yaml"
        path.write_text("first: 3")
        server.reply = versioned(b"budget: 7", '"1"')
        source = PolicySource.of(
            BASE, told, file=str(path), url=server.url, key=KEY, refresh_s=0.1, cache=str(tmp_path / "cache")
        )
        source.start()
        try:
            eventually(lambda: source.rules.budget_per_s == 7)
            server.reply = versioned(b"budget: 8", '"2"')
            new = tmp_path / "new"
            new.write_text("first: 5")
            new.replace(path)
            eventually(lambda: (source.rules.first, source.rules.budget_per_s) == (5, 8.0))
            assert told.rules[-1] == source.rules
        finally:
            source.stop()

    def test_nothing_to_watch_starts_no_thread(self, told: Told) -> None:
        before = threading.active_count()
        source = PolicySource.of(BASE, told)
        source.start()
        assert threading.active_count() == before
        assert told.rules == []

    def test_it_can_be_stopped_and_started_again(self, tmp_path: Path, told: Told) -> None:
        path = tmp_path / "policy.yaml"
        path.write_text("first: 3")
        source = PolicySource.of(BASE, told, file=str(path))
        for number in (4, 5):
            source.start()
            assert [thread.daemon for thread in watchers()] == [True]
            source.stop(20.0)
            assert watchers() == []
            path.write_text(f"first: {number}")
        source.start()
        assert source.rules.first == 5
        source.stop(20.0)

    def test_a_mistake_in_what_is_told_does_not_end_the_watch(self, tmp_path: Path) -> None:
        path = tmp_path / "policy.yaml"
        told: list[int] = []

        def fails(rules: Rules) -> None:
            told.append(rules.first)
            raise RuntimeError

        source = PolicySource.of(BASE, fails, file=str(path))
        source.start()
        try:
            for number in (3, 4):
                path.write_text(f"first: {number}")
                eventually(lambda number=number: number in told)  # type: ignore[misc]
        finally:
            source.stop()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_forked_child_goes_on_watching(self, tmp_path: Path, told: Told) -> None:
        path = tmp_path / "policy.yaml"
        path.write_text("first: 3")
        source = PolicySource.of(BASE, told, file=str(path))
        source.start()
        ready, done = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.write(done, b".")
                eventually(lambda: source.rules.first == 4)
                status = 0 if len(watchers()) == 1 else 2
            finally:
                os._exit(status)
        os.read(ready, 1)
        path.write_text("first: 4")
        _, status = os.waitpid(child, 0)
        source.stop()
        os.close(ready)
        os.close(done)
        assert os.waitstatus_to_exitcode(status) == 0

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_stopped_source_stays_stopped_in_a_child(self, tmp_path: Path, told: Told) -> None:
        path = tmp_path / "policy.yaml"
        path.write_text("first: 3")
        source = PolicySource.of(BASE, told, file=str(path))
        source.start()
        source.stop(20.0)
        child = os.fork()
        if child == 0:
            os._exit(len(watchers()))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def test_a_process_ends_in_peace_while_a_request_hangs(self, tmp_path: Path) -> None:
        """What runs at exit needs no thread, and waits for none."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
            code = (
                "import sys; from otelweir.pipeline.sample.logs.policy_source import PolicySource;"
                "from otelweir.pipeline.sample.logs.rules import Rules;"
                "from otelweir.pipeline.sample.logs.settings import LogSamplingSettings;"
                "PolicySource.of(Rules.of(LogSamplingSettings()), print, url=sys.argv[1], cache=sys.argv[2]).start()"
            )
            run = subprocess.run(
                [sys.executable, "-c", code, url, str(tmp_path)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "weir-policy"]


def test_the_cache_is_json_that_others_can_read(tmp_path: Path) -> None:
    PolicyCache(str(tmp_path), "u", wall=lambda: 5.0).store(b"first: 3", '"e"')
    (file,) = tmp_path.iterdir()
    entry: dict[str, Any] = json.loads(file.read_text())
    assert (entry["version"], entry["etag"], entry["fetched"], entry["body"]) == (1, '"e"', 5.0, "first: 3")


def test_a_trouble_that_is_over_can_be_told_again(said: Callable[[], list[str]]) -> None:
    trouble = errors.Trouble()
    for _ in range(2):
        trouble.say(errors.POLICY_INVALID, "x")
        trouble.say(errors.POLICY_INVALID, "x")
        trouble.over()
    assert len(said()) == 2
