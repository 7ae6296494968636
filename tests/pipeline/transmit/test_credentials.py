"""Keys that rotate: nothing raises, nothing shows a secret, and the last good one stays in force."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir.pipeline.transmit.credentials import (
    MAX_FILE,
    PATIENCE_S,
    HeadersFile,
    LoggedIn,
    Login,
    expiry_of,
    parse_headers,
    request_of,
    token_of,
)
from otelweir.pipeline.transmit.headers import check, hushed, merged, metadata
from otelweir.pipeline.transmit.http import HttpSender
from otelweir.pipeline.transmit.login import LoginRequest
from otelweir.pipeline.transmit.outcome import Delivered, Outcome, RetryAfter, Unauthorised
from otelweir.testing import Answer, Backend, Clock

NOW = 1_800_000_000.0


def jwt(**claims: Any) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part(claims)}.c2lnbmF0dXJl"


class TestTextOfHeaders:
    def test_both_signs_comments_and_empty_lines(self) -> None:
        text = "# key\r\n\nAuthorization: Bearer a=b:c\n x-tenant = shop \nempty:\n"
        assert parse_headers(text) == {"authorization": "Bearer a=b:c", "x-tenant": "shop", "empty": ""}

    @pytest.mark.parametrize("line", ["secret", ": secret", "a b: secret", "x: secret→", "x: a\x00secret", "ä: secret"])
    def test_a_line_that_is_none_is_named_by_its_number_alone(self, line: str) -> None:
        with pytest.raises(ValueError, match="line 2 is not a header") as error:
            parse_headers(f"good: 1\n{line}")
        assert "secret" not in str(error.value)
        assert error.value.__cause__ is None

    @given(st.text())
    def test_what_is_read_can_be_sent(self, text: str) -> None:
        try:
            found = parse_headers(text)
        except ValueError:
            return
        check(found)


class TestHeaders:
    def test_the_last_layer_wins_whatever_the_case(self) -> None:
        assert merged({"X-Key": "a", "b": "1"}, {"x-key": "c", "B": ""}) == {"x-key": "c"}

    @given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4))
    def test_grpc_takes_what_is_let_through(self, headers: dict[str, str]) -> None:
        try:
            found = metadata(headers)
        except ValueError:
            return
        for name, value in found:
            assert name == name.lower()
            assert not name.startswith("grpc-")
            assert (name + value).isascii()

    @given(st.text(alphabet="abc ", min_size=4), st.text(alphabet="abc xyz"))
    def test_no_word_of_a_secret_is_shown(self, secret: str, text: str) -> None:
        outcome = hushed(Unauthorised(f"{text}{secret}{text}"), [secret])
        assert isinstance(outcome, Unauthorised)
        assert not [word for word in secret.split() if len(word) > 3 and word in outcome.why]


class TestFile:
    def test_it_is_read_again_when_it_changes(self, tmp_path: Path) -> None:
        path = tmp_path / "headers"
        path.write_text("x-key: first")
        headers = HeadersFile(str(path))
        assert headers() == {"x-key": "first"}
        path.write_text("x-key: second one")
        assert headers() == {"x-key": "second one"}
        # As a mounted secret changes: a link is turned to another file, of the same size and age.
        for name in ("one", "two"):
            (tmp_path / name).write_text(f"x-key: {name}")
            os.utime(tmp_path / name, (1, 1))
            path.unlink()
            path.symlink_to(tmp_path / name)
            assert headers() == {"x-key": name}

    def test_what_was_good_stays_and_the_trouble_is_said_once(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "headers"
        path.write_text("x-key: s3cr3t")
        headers = HeadersFile(str(path))
        headers()
        for spoil in (path.unlink, lambda: path.write_text("x-key: s3cr3t\nn0nsense"), path.unlink, path.mkdir):
            spoil()
            for _ in range(3):
                assert headers() == {"x-key": "s3cr3t"}
        assert [message.split(". ")[0] for message in caplog.messages] == [
            f"WEIR-AUTH-001: {path}: No such file or directory",
            f"WEIR-AUTH-001: {path}: line 2 is not a header such as name: value",
            f"WEIR-AUTH-001: {path}: No such file or directory",
            f"WEIR-AUTH-001: {path}: it is no regular file",
        ]
        assert "cr3t" not in caplog.text + repr(headers)

    def test_it_may_come_later(self, tmp_path: Path) -> None:
        headers = HeadersFile(str(tmp_path / "headers"))
        assert headers() == {}
        (tmp_path / "headers").write_text("a=b")
        assert headers() == {"a": "b"}

    def test_neither_a_huge_one_nor_a_pipe_nor_noise_does_harm(self, tmp_path: Path) -> None:
        path = tmp_path / "headers"
        os.mkfifo(path)
        assert HeadersFile(str(path))() == {}
        path.unlink()
        path.write_text("x-key: good")
        headers = HeadersFile(str(path))
        for content in (b"x-key: good", b"a: b\n" * MAX_FILE, b"\xff\xfe\x00", b""):
            path.write_bytes(content)
            assert headers() == {"x-key": "good"}
        path.write_text("# none any more")
        assert headers() == {}


class TestToken:
    @pytest.mark.parametrize("name", ["access_token", "token", "accessToken", "jwt", "id_token"])
    def test_it_is_found_under_its_usual_names(self, name: str) -> None:
        for answer in ({name: "abc"}, {"data": {name: "abc"}}):
            token = token_of(json.dumps(answer).encode(), NOW)
            assert token is not None
            assert (token.text, token.life_s) == ("abc", None)
            assert "abc" not in repr(token)

    def test_the_shorter_life_counts(self) -> None:
        for expires_in, exp, life_s in ((60, NOW + 30, 30.0), (20, NOW + 30, 20.0), (None, NOW + 30, 30.0)):
            token = token_of(json.dumps({"token": jwt(exp=exp), "expires_in": expires_in}).encode(), NOW)
            assert token is not None
            assert token.life_s == life_s

    @given(
        st.binary()
        | st.recursive(
            st.none() | st.text() | st.floats(),
            lambda x: st.dictionaries(st.sampled_from(["token", "data", "expires_in", "access_token"]), x),
        ).map(lambda x: json.dumps(x).encode())
    )
    def test_no_answer_breaks_it(self, body: bytes) -> None:
        token = token_of(body, NOW)
        if token is not None:
            check({"authorization": f"Bearer {token.text}"})

    @given(st.text() | st.tuples(st.text(), st.text(), st.text()).map(".".join))
    def test_no_text_breaks_the_look_for_its_end(self, text: str) -> None:
        assert expiry_of(text) is None or isinstance(expiry_of(text), float)


class Auth:
    """A login whose server is a function, with a clock that one moves."""

    def __init__(self) -> None:
        self.clock = Clock(1000.0)
        self.asked: list[bytes] = []
        self.answer: tuple[int, bytes] | Outcome = (200, b'{"token": "t1", "expires_in": 100}')
        self.login = Login(
            "https://auth", request_of("me", "s3cr3t", "shop"), self._ask, clock=self.clock, now=lambda: NOW
        )

    def _ask(self, body: bytes, until: float) -> tuple[int, bytes] | Outcome:
        self.asked.append(body)
        assert until <= self.clock() + 5
        return self.answer

    def prepare(self) -> Outcome | None:
        return self.login.prepare(self.clock() + 10)


class TestLogin:
    def test_it_asks_once_and_uses_the_token(self) -> None:
        auth = Auth()
        assert auth.login.headers() == {}
        assert [auth.prepare() for _ in range(3)] == [None] * 3
        assert auth.login.headers() == {"authorization": "Bearer t1"}
        assert [json.loads(body) for body in auth.asked] == [
            {"username": "me", "password": "s3cr3t", "workspace": "shop"}
        ]
        assert "t1" not in repr(auth.login)
        assert "s3cr3t" not in repr(auth.login)

    def test_a_new_one_is_fetched_ahead_of_the_end(self) -> None:
        auth = Auth()
        auth.prepare()
        auth.answer = (200, b'{"token": "t2", "expires_in": 100}')
        auth.clock.advance(79)
        auth.prepare()
        assert auth.login.headers() == {"authorization": "Bearer t1"}
        auth.clock.advance(1)
        auth.prepare()
        assert auth.login.headers() == {"authorization": "Bearer t2"}

    def test_while_none_can_be_had_the_old_one_is_used_until_it_ends(self, caplog: pytest.LogCaptureFixture) -> None:
        auth = Auth()
        auth.prepare()
        auth.answer = (503, b"s3cr3t")
        auth.clock.advance(80)
        for _ in range(19):
            assert auth.prepare() is None
            assert auth.login.headers() == {"authorization": "Bearer t1"}
            auth.clock.advance(1)
        auth.clock.advance(1)
        assert auth.prepare() == RetryAfter(None, "https://auth answers HTTP 503")
        assert auth.login.headers() == {}
        # 1, 2, 4 and 8 seconds apart.
        assert len(auth.asked) == 1 + 5
        assert len(caplog.messages) == 1
        assert "cr3t" not in caplog.text

    def test_a_refusal_by_the_login_waits_for_a_better_password(self) -> None:
        auth = Auth()
        for status, kind in ((401, Unauthorised), (400, Unauthorised), (429, RetryAfter), (500, RetryAfter)):
            auth.answer = (status, b"")
            auth.clock.advance(100)
            assert type(auth.prepare()) is kind
        for body in (b"", b"{}", b'{"token": ""}', json.dumps({"token": jwt(exp=NOW - 1)}).encode()):
            auth.answer = (200, body)
            auth.clock.advance(100)
            assert isinstance(auth.prepare(), Unauthorised | RetryAfter)
            assert auth.login.headers() == {}
        auth.answer = (200, b'{"token": "t"}')
        auth.clock.advance(100)
        assert auth.prepare() is None

    def test_a_refused_token_is_replaced_unless_it_is_fresh(self) -> None:
        auth = Auth()
        auth.prepare()
        used = auth.login.headers()
        assert not auth.login.refused(used)
        auth.clock.advance(PATIENCE_S)
        assert auth.login.refused(used)
        auth.answer = (200, b'{"token": "t2"}')
        auth.prepare()
        assert auth.login.headers() == {"authorization": "Bearer t2"}
        assert auth.login.refused(used), "another one is there already"
        assert not auth.login.refused(auth.login.headers())

    def test_a_server_that_refuses_all_does_not_make_it_log_in_again_and_again(self) -> None:
        auth = Auth()
        for _ in range(60):
            auth.prepare()
            auth.login.refused(auth.login.headers())
            auth.clock.advance(1)
        assert len(auth.asked) <= 1 + 60 / PATIENCE_S

    def test_over_real_sockets(self) -> None:
        """A login and a collector; the collector refuses the first token after a while."""
        clock = Clock(1000.0)
        with Backend() as auth, Backend() as collector:
            # What the double does not know as OTLP it answers with 404, so the scripted answer is the refusal's body.
            auth.answers = [Answer(503), Answer(201, body=b'{"token": "t1"}'), Answer(201, body=b'{"token": "t2"}')]
            url = f"{auth.endpoint}/v1/logs"
            login = Login(url, b"", LoginRequest(url, environ={}), clock=clock)
            sender = LoggedIn(
                HttpSender(f"{collector.endpoint}/v1/logs", login.headers, environ={}), login, timeout_s=9, clock=clock
            )
            # The senders below take real times; the clock above says only how old a token is.
            sender._sender._clock = clock  # type: ignore[attr-defined]
            login._ask._clock = clock  # type: ignore[attr-defined]
            assert isinstance(sender.send(b"", "logs"), RetryAfter)
            assert not collector.requests
            clock.advance(2)
            assert sender.send(b"", "logs") == Delivered()
            clock.advance(20)
            collector.answers = [Answer(401)]
            assert sender.send(b"", "logs", frames="f") == Delivered()
            keys = [request.headers["authorization"] for request in collector.requests]
            assert keys == ["Bearer t1", "Bearer t1", "Bearer t2"]
            assert auth.requests[0].headers["content-type"] == "application/json"
            assert sender.wire_bytes == 0
            sender.close()


class TestLoginRequest:
    def test_a_redirect_is_not_followed_and_nobody_is_an_outcome(self) -> None:
        with Backend() as auth, Backend() as other:
            auth.answers = [Answer(307, {"Location": f"{other.endpoint}/v1/logs"})]
            ask = LoginRequest(f"{auth.endpoint}/v1/logs?key=s3cr3t", environ={})
            assert ask(b"{}", time.monotonic() + 20) == (307, b"")
            assert not other.requests
            assert "s3cr3t" not in repr(ask)
        assert ask(b"{}", time.monotonic() + 20) == RetryAfter(None, "Connection refused")
