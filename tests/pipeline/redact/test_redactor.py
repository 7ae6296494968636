"""What is hidden in texts, values and attributes, and what stays the same object."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelweir import errors
from otelweir.pipeline.redact import Own, Plan, Redactor, Scrubber
from otelweir.pipeline.redact.actions import FAILED
from otelweir.pipeline.redact.plan import RULES

CARD = "4111 1111 1111 1111"


def scrubber(**plan: Any) -> Scrubber:
    return Redactor(Plan(**plan)).of("logs")


class TestAttributes:
    def test_that_hold_no_secret_need_no_copy(self) -> None:
        pairs = {"http.route": "/orders", "http.response.status_code": 200, "retried": False, "x": 0.5, "y": None}
        for _ in range(2):  # the second time from memory
            assert scrubber().attributes(pairs) is None

    @pytest.mark.parametrize(
        "name",
        [
            *(
                "password",
                "db.password",
                "userPassword",
                "PASSWD",
                "client_secret",
                "apiKey",
                "X-API-KEY",
                "auth.token",
            ),
            *("http.request.header.authorization", "http.request.header.cookie", "http.response.header.set-cookie"),
            *("aws.secret_access_key", "private_key", "mysqlpassword", "ssn", "session_token", "credentials"),
        ],
    )
    def test_with_the_name_of_a_secret_are_masked(self, name: str) -> None:
        assert scrubber().attributes({name: "abc"}) == {name: "[redacted:name]"}

    @pytest.mark.parametrize(
        "name",
        [
            *("token_count", "max_tokens", "gen_ai.usage.input_tokens", "author", "passenger", "primary_key", "monkey"),
            *("password_length", "token_type", "secretary", "keyboard", "session.id", "auth.method", "next_token"),
            *(
                "cookie_consent.enabled",
                "code.line.number",
                "compass",
                "tokenizer",
                "foreign_key",
                "key",
                "bypass_count",
            ),
            *(
                "gen_ai.server.time_to_first_token",
                "secret_name",
                "token.expires_at",
                "authentication.result",
                "cache_key",
            ),
        ],
    )
    def test_with_a_name_that_only_sounds_so_stay(self, name: str) -> None:
        assert scrubber().attributes({name: "abc"}) is None

    def test_a_number_is_a_secret_where_it_can_be_one(self) -> None:
        found = scrubber().attributes(
            {"pin": 4711, "token": 17, "password": True, "api_key": None, "n": 4111111111111111}
        )
        assert found == {
            "pin": "[redacted:name]",
            "token": 17,
            "password": True,
            "api_key": None,
            "n": "[redacted:card]",
        }

    def test_lists_keep_their_shape(self) -> None:
        found = scrubber().attributes({"http.request.header.authorization": ("Bearer a1", "Basic b2")})
        assert found == {"http.request.header.authorization": ("[redacted:name]", "[redacted:name]")}

    def test_nested_values_are_looked_at_by_name_and_by_value(self) -> None:
        found = scrubber().attributes(
            {"d": {"token": "abc", "to": ["bob@example.org", 1], "n": {"deep": f"card {CARD}"}}}
        )
        assert found == {
            "d": {"token": "[redacted:name]", "to": ["[redacted:email]", 1], "n": {"deep": "card [redacted:card]"}}
        }

    def test_arguments_of_a_command(self) -> None:
        found = scrubber().attributes({"process.command_args": ("run", "--password", "hunter2", "--api-key=x9", "-v")})
        assert found == {
            "process.command_args": ("run", "--password", "[redacted:name]", "--api-key=[redacted:name]", "-v")
        }

    def test_keys_can_hold_secrets_and_two_do_not_become_one(self) -> None:
        found = scrubber().attributes({"sent to alice@example.com": 1, "sent to bob@example.com": 2})
        assert found == {"sent to [redacted:email]": 1, "sent to [redacted:email]#2": 2}

    def test_url_full(self) -> None:
        found = scrubber().attributes({"url.full": "https://me:pw@x.io/a?access_token=abc123&page=2"})
        assert found == {"url.full": "https://[redacted:url]@x.io/a?access_token=[redacted:name]&page=2"}

    def test_what_others_hid_stays(self) -> None:
        assert scrubber().attributes({"http.request.header.authorization": ("[REDACTED]",), "password": "****"}) is None


class TestActions:
    def test_hashes_are_stable_and_depend_on_the_key(self) -> None:
        one, other = (scrubber(action="hash", key=key).text("to bob@example.org") for key in ("a", "b"))
        assert one == scrubber(action="hash", key="a").text("to bob@example.org") != other
        assert one.startswith("to [redacted:email:") and "bob" not in one

    def test_without_a_key_hashes_are_marks(self, caplog: pytest.LogCaptureFixture) -> None:
        errors.forget_warnings()
        assert scrubber(action="hash").text("to bob@example.org") == "to [redacted:email]"
        assert errors.REDACT_NO_KEY.code in caplog.text

    def test_partial(self) -> None:
        found = scrubber(action="partial")
        assert found.text(f"bob@example.org paid with {CARD}") == "b***@example.org paid with ***1111"
        assert found.text("password=hunter2") == "password=[redacted:name]"

    def test_drop_leaves_attributes_out(self) -> None:
        found = scrubber(action="drop")
        assert found.attributes({"password": "x1", "n": 1, "d": {"token": "y", "m": 2}}) == {"n": 1, "d": {"m": 2}}
        assert found.text("to bob@example.org now") == "to  now"

    def test_each_rule_may_have_its_own(self) -> None:
        found = scrubber(actions={"email": "drop"})
        assert found.text("a@example.org password=hunter2") == " password=[redacted:name]"


class TestPlans:
    def test_addresses_of_machines_only_when_asked_for(self) -> None:
        text = "10.1.2.3 and fe80::1ff:fe23:4567:890a"
        assert scrubber().text(text) is text
        assert scrubber(rules=RULES).text(text) == "[redacted:ipv4] and [redacted:ipv6]"

    def test_a_rule_that_is_off_finds_nothing(self) -> None:
        text = "bob@example.org password=hunter2"
        assert scrubber(rules=("name",)).text(text) == "bob@example.org password=[redacted:name]"
        assert scrubber(rules=("email",)).text(text) == "[redacted:email] password=hunter2"

    def test_more_names(self) -> None:
        found = scrubber(names=("customer_code", "x-*-ref"))
        assert found.attributes({"customerCode": "7", "x-my-ref": "8", "ref": "9"}) == {
            "customerCode": "[redacted:name]",
            "x-my-ref": "[redacted:name]",
            "ref": "9",
        }
        assert found.text("customer_code=abc") == "customer_code=[redacted:name]"

    def test_allowed_names_and_values(self) -> None:
        found = scrubber(allow=("session_token", "*@example.com"))
        text = "session_token=abc to bob@example.com and eve@example.org"
        assert found.text(text) == "session_token=abc to bob@example.com and [redacted:email]"
        assert found.attributes({"session_token": "abc", "other_session_token": "x"}) == {
            "session_token": "abc",
            "other_session_token": "[redacted:name]",
        }

    def test_a_plan_that_comes_while_another_thread_loads_rules_holds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """That thread must not put the rules of the last plan in the place of the new one's."""
        found = scrubber()
        load = found._loaded

        def late(plan: Plan) -> Any:
            monkeypatch.setattr(found, "_loaded", load)
            found.use(Plan(rules=RULES))
            return load(plan)

        monkeypatch.setattr(found, "_loaded", late)
        found.text("bob@example.org")
        assert found.text("10.1.2.3 or bob@example.org") == "[redacted:ipv4] or [redacted:email]"

    def test_rules_of_ones_own(self) -> None:
        found = scrubber(own=(Own("ticket", r"ACME-[0-9]{4,8}"), Own("who", r"user ([a-z]{1,20})")))
        assert found.text("ACME-12345 for user bob") == "[redacted:ticket] for user [redacted:who]"

    def test_each_signal_may_have_its_own(self) -> None:
        redactor = Redactor()
        redactor.apply({"rules": "default,-phone", "signals": {"traces": {"rules": ["email"], "action": "drop"}}})
        text = "bob@example.org +49 30 901820 password=hunter2"
        assert redactor.of("logs").text(text) == "[redacted:email] +49 30 901820 password=[redacted:name]"
        assert redactor.of("traces").text(text) == " +49 30 901820 password=hunter2"

    def test_a_policy_that_is_taken_away_leaves_the_settings(self) -> None:
        redactor = Redactor()
        logs = redactor.of("logs")
        redactor.apply({"allow": ["*@example.org"]})
        assert logs.text("bob@example.org") == "bob@example.org"
        redactor.apply(None)
        assert logs.text("bob@example.org") == "[redacted:email]"

    def test_counts_by_rule_and_signal(self) -> None:
        redactor = Redactor()
        redactor.of("logs").text("bob@example.org eve@example.org")
        redactor.of("traces").attributes({"password": "x1"})
        assert redactor.counts() == {("email", "logs"): 2, ("name", "traces"): 1}


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("password=hunter2")


class TestFailingClosed:
    def test_what_cannot_be_looked_at_is_replaced_and_counted(self, caplog: pytest.LogCaptureFixture) -> None:
        def detector(text: str) -> Any:
            raise ValueError(text)

        errors.forget_warnings()
        redactor = Redactor(detector=detector)
        assert redactor.of("logs").attributes({"a": "some text", "n": 1}) == {"a": FAILED, "n": 1}
        assert redactor.counts() == {("failed", "logs"): 1}
        assert errors.REDACT_FAILED.code in caplog.text and "some text" not in caplog.text

    def test_values_that_refuse_to_be_read(self) -> None:
        class Mine(dict[str, Any]):
            def items(self) -> Any:
                raise RuntimeError

        assert scrubber().value(Mine()) == FAILED
        assert scrubber().value(Hostile()) == "<Hostile>"

    def test_values_within_themselves(self) -> None:
        inside: list[Any] = [1]
        inside.append(inside)
        assert scrubber().value({"a": inside}) == {"a": [1, "…"]}

    def test_a_detector_finds_more(self) -> None:
        found = Redactor(detector=lambda text: [(0, 3, "person")]).of("logs")
        assert found.text("Bob paid") == "[redacted:person] paid"


texts = st.text() | st.lists(
    st.sampled_from(
        ["password", "=", ":", '"', "'", " ", "@", "a.b", "4111", "-", "eyJ", "\\", "://", "x", "İ", "\n", "is"]
    )
).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner) | st.tuples(inner, inner),
    max_leaves=10,
)


class TestAnyInput:
    @given(texts)
    def test_findings_are_in_order_and_within_the_text(self, text: str) -> None:
        at = 0
        for begin, end, _ in scrubber(rules=RULES).findings(text):
            assert at <= begin < end <= len(text)
            at = end

    @given(texts)
    def test_a_clean_text_is_one_that_stays(self, text: str) -> None:
        found = scrubber()
        assert found.clean(text) == (found.text(text) is text)

    @given(values)
    def test_a_clean_value_is_one_that_stays(self, value: Any) -> None:
        found = scrubber()
        if found.clean_value(value):
            assert repr(found.value(value)) == repr(value)
        assert FAILED not in repr(found.value(value))

    @given(st.text(alphabet="0123456789- ", max_size=40), st.text(alphabet="abc ,;", max_size=5))
    def test_a_card_is_found_wherever_it_stands(self, before: str, after: str) -> None:
        text = f"{before}x {CARD} {after}"
        assert CARD not in scrubber().text(text)


PATHOLOGICAL = (
    *("1", "1 ", "1-", "4111-", "a@", "@a.", "a@b.c", "%40a.", "eyJ", "eyJaaaaaaaaa.", "://", "://a:b", "://a:", "sk-"),
    *("password=", 'password="', 'password="\\"', 'token=\\"', "key", "key ", "DE89 ", "+1 2 3 ", "phone 1", "ssn: "),
    *("555.555.", ":", "=", "bearer ", " ", "A", "AKIA", "ü@ü.", "a_", "--token ", "123-45-", "x@a-", "-p "),
    *("-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\nAA\n-----END ", "İpassword=x ", 'password="x\n'),
    *("password for a ", "token a1", "password 'a", "identified by '", "token,", "token a='", "<token a='>", "pass%3D"),
    *("password%3D%26", "curl -u a:", "mysql -p", "echo a1b2c3 \\", "$2b$12$", "$argon2id$v=1$m=1,t=1,p=1$", "a.a."),
    *("Authorization: Digest a=b,", "auth=('a',", "secret: ${", "password is ", "[redacted:", "name: token\n", "\n"),
    *("1 is your ", "code 1234 ", "token is a ", "?code=", "&sig=a", "password&password ", "\ud800", "%", "sl."),
)
REFUSED = "..."
"""What stands at the end makes a rule refuse what it has read so far."""


def cpu_s(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(2):
        began = time.thread_time()
        work()
        best = min(best, time.thread_time() - began)
    return best


@pytest.mark.parametrize("end", ["", REFUSED])
def test_time_is_linear_in_the_text(end: str) -> None:
    """Eight times the text takes eight times as long; what is quadratic takes 64 times as long."""
    found = scrubber(rules=RULES)
    slow = {}
    for part in PATHOLOGICAL:
        short, long = ((part * (size // len(part) + 1))[:size] + end for size in (4 * 1024, 32 * 1024))
        times = cpu_s(lambda text=short: found.text(text)), cpu_s(lambda text=long: found.text(text))  # type: ignore[misc]
        if times[1] > 32 * max(times[0], 0.0005):
            slow[part] = times
    assert not slow


def test_a_megabyte_of_the_worst_is_looked_at() -> None:
    found = scrubber(rules=RULES)
    for part in ("1 ", "password=", "password%3D%26"):
        text = (part * 2**20)[: 2**20]
        assert found.text(text) != FAILED


def test_a_long_value_is_hidden_to_its_end() -> None:
    value = "a1b2c3d4" * 2500
    for text in (f"password={value}", f"the password is {value}", f"?sig={value}"):
        assert "a1b2" not in scrubber().text(text)


class TestHostileValues:
    def test_ten_thousand_names_that_become_one(self) -> None:
        pairs = {f"user{n}@example.org": n for n in range(10_000)}
        found = scrubber().attributes(pairs)
        assert found is not None and len(found) == 10_000
        assert len(scrubber().value(pairs)) == 10_000
        assert "@" not in "".join(found)

    @pytest.mark.parametrize("make", [lambda inner: [inner], lambda inner: {"a": inner}, lambda inner: (inner,)])
    def test_a_thousand_deep(self, make: Callable[[Any], Any]) -> None:
        value: Any = "bob@example.org"
        for _ in range(1000):
            value = make(value)
        assert "bob" not in repr(scrubber().value(value))
        assert "bob" not in repr(scrubber().attributes({"deep": value}))
        assert not scrubber().clean_value(value)

    def test_bytes_and_numbers(self) -> None:
        found = scrubber()
        assert found.value(b"\xff password=hunter2") == b"\xff password=[redacted:name]"
        assert found.value(10**5000) == 10**5000
        assert found.value("\ud800 bob@example.org") == "\ud800 [redacted:email]"

    @pytest.mark.parametrize("error", [MemoryError, RecursionError, ValueError, SystemExit])
    def test_a_detector_that_raises_lets_nothing_out(self, error: type[BaseException]) -> None:
        def detector(text: str) -> Any:
            raise error("zq7secret")

        errors.forget_warnings()
        found = Redactor(detector=detector).of("logs")
        assert found.text("zq7secret") == FAILED
        assert not found.clean("zq7secret")
        assert found.attributes({"a": "zq7secret", "n": 1}) == {"a": FAILED, "n": 1}
        assert found.value({"a": ["zq7secret"]}) == {"a": [FAILED]}


lines = st.lists(st.sampled_from(["password", "=", ":", '"', " x9", "token", " is ", "a1b2c3d4", "name: ", "value"]))


class TestManyLines:
    """A text of many lines may be judged by each two of them; what is found must be the same."""

    @given(st.lists(lines.map("".join), min_size=4, max_size=8).map("\n".join))
    def test_the_answer_is_that_of_the_whole(self, text: str) -> None:
        text = f"{text}\n{'.' * 100}"
        found = scrubber()
        assert found.clean(text) == (not found.findings(text))
        assert found.clean(text) == (not found.findings(text))  # from memory

    @pytest.mark.parametrize(
        "text", ["password:\n  hunter2x", "- name: DB_PASSWORD\n  value: hunter2x", '"token":\n "x9"']
    )
    def test_a_name_and_its_value_on_two_lines(self, text: str) -> None:
        framed = "\n".join(["a line"] * 20 + [text] + ["a line"] * 20)
        assert "[redacted:name]" in scrubber().text(framed)
        assert not scrubber().clean(framed)

    def test_a_key_of_many_lines(self) -> None:
        key = "\n".join(
            ["-----BEGIN PRIVATE KEY-----", *["MIIEvQIBADANBgkqhkiG9w0BAQ"] * 9, "-----END PRIVATE KEY-----"]
        )
        assert scrubber().text(f"{'a line' * 30}\n\n\n{key}\n") == f"{'a line' * 30}\n\n\n[redacted:pem]\n"

    def test_rules_of_ones_own_see_all_lines(self) -> None:
        found = scrubber(own=(Own("x", r"one\ntwo\nthree"),))
        framed = "\n".join(["a line"] * 20 + ["one", "two", "three"] + ["a line"] * 20)
        assert "[redacted:x]" in found.text(framed)
