"""What a service writes, labelled: secrets stand between « and »; lines without any are look-alikes that have to stay.

Keys are drawn at random, as their providers do; the shapes of the lines come from logs, spans and prompts of real
services, with other contents.
"""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Iterator

_rnd = random.Random(17)  # the same corpus on every run
_ALNUM = string.ascii_letters + string.digits


def _drawn(length: int, signs: str = _ALNUM) -> str:
    return "".join(_rnd.choice(signs) for _ in range(length))


def _jwt() -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    head = {"alg": _rnd.choice(("HS256", "RS256", "ES256")), "typ": "JWT"}
    return f"{part(head)}.{part({'sub': _drawn(10), 'exp': 1760000000})}.{_drawn(43, _ALNUM + '-_')}"


def _card(begin: str, length: int, gap: str = "") -> str:
    digits = begin + _drawn(length - len(begin) - 1, string.digits)
    total = sum(
        sum(divmod(int(sign) * (2 if place % 2 == 0 else 1), 10)) for place, sign in enumerate(reversed(digits))
    )
    digits += str(-total % 10)
    size = 4
    return gap.join(digits[at : at + size] for at in range(0, length, size))


def _iban(country: str, account: str) -> str:
    number = "".join(str(int(sign, 36)) for sign in f"{account}{country}00")
    return f"{country}{98 - int(number) % 97:02}{account}"


def _pem(kind: str = "RSA ") -> str:
    lines = "\n".join(_drawn(64, _ALNUM + "+/") for _ in range(8))
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{lines}\n-----END {kind}PRIVATE KEY-----"


def secrets() -> Iterator[str]:
    """Lines with at least one secret each."""
    yield from _people()
    yield from _keys()
    yield from _named()
    yield from _spans_and_prompts()


def _people() -> Iterator[str]:
    for address in ("alice@example.com", "Bob.O'Neil+news@mail.example.co.uk", "müller@example.de", "a_b-c@x1.io"):
        yield f"user «{address}» logged in"
        yield f"550 5.1.1 <«{address}»>: Recipient address rejected"
        yield f"https://shop.example.com/unsubscribe?email=«{address}»&list=3"
        yield f'{{"event":"signup","email":"«{address}»","plan":"pro"}}'
    yield "merge request !42 by Jane Doe («jane.doe@example.org», «jd@example.net»)"
    for gap in ("", " ", "-"):
        yield f"charge declined for card «{_card('4', 16, gap)}» (insufficient funds)"
        yield f"pan=«{_card('55', 16, gap)}», exp 04/29"
        yield f"order 3 «{_card('2223', 16, gap)}» refunded"
    yield f"amex «{_card('37', 15)}» accepted"
    yield f"payment from «{_card('6011', 16)}»."
    yield f"row: 17,«{_card('4', 16)}»,EUR,12.50"
    german, dutch, norse = _iban("DE", "370400440532013000"), _iban("NL", "ABNA0417164300"), _iban("NO", "86011117947")
    for account in (german, dutch, norse, _iban("GB", "NWBK60161331926819"), _iban("FR", "20041010050500013M02606")):
        yield f"SEPA transfer to «{account}» over 120.00 EUR queued"
        spaced = " ".join(account[at : at + 4] for at in range(0, len(account), 4))
        yield f"IBAN: «{spaced}»"
    yield "customer ssn «123-45-6789» verified"
    yield 'form field "tax" = «219-09-9998»'
    for number in ("+49 30 901820", "+1-212-555-0142", "+442079460958", "+33 1 99 00 12 34", "(415) 555-0132"):
        yield f"sms to «{number}» queued"
        yield f"caller «{number}», waiting 12 s"
    yield "fax 1-800-555-0199 is old, «212-555-0187» is new".replace("1-800-555-0199", "«1-800-555-0199»")
    yield "ring «555.123.4567» instead"


def _keys() -> Iterator[str]:
    lower, url = string.ascii_lowercase + string.digits, _ALNUM + "-_"
    hexes = "0123456789abcdef"
    keys = [
        f"sk-{_drawn(48)}",
        f"sk-proj-{_drawn(64, url)}7a",
        f"sk-ant-api03-{_drawn(93, url)}AA",
        f"gsk_{_drawn(52)}",
        f"hf_{_drawn(34)}",
        f"r8_{_drawn(37)}",
        f"ghp_{_drawn(36)}",
        f"gho_{_drawn(36)}",
        f"github_pat_{_drawn(22)}_{_drawn(59)}",
        f"glpat-{_drawn(20)}",
        f"xoxb-{_drawn(12, string.digits)}-{_drawn(12, string.digits)}-{_drawn(24)}",
        f"AKIA{_drawn(16, string.ascii_uppercase[:26] + '234567')}",
        f"AIza{_drawn(35, url)}",
        f"ya29.{_drawn(60, url)}",
        f"GOCSPX-{_drawn(28)}",
        f"sk_live_{_drawn(24)}",
        f"rk_live_{_drawn(24)}",
        f"whsec_{_drawn(32)}",
        f"SG.{_drawn(22)}.{_drawn(43)}",
        f"npm_{_drawn(36)}",
        f"pypi-AgEIcHlwaS5vcmc{_drawn(80, url)}",
        f"dop_v1_{_drawn(64, hexes)}",
        f"shpat_{_drawn(32, hexes)}",
        f"dapi{_drawn(32, hexes)}",
        f"hvs.{_drawn(90)}",
        f"NRAK-{_drawn(27, string.ascii_uppercase + string.digits)}",
        f"glsa_{_drawn(32)}_{_drawn(8, hexes)}",
        f"lin_api_{_drawn(40)}",
        f"dckr_pat_{_drawn(27)}",
        f"{_drawn(9, string.digits)}:AA{_drawn(33, url)}",
        _jwt(),
        _jwt(),
    ]
    for key in keys:
        yield f"401 Unauthorized: invalid credentials «{key}» for /v1/models"
        yield f"please use «{key}» in the staging environment, ok?"
        yield f"+export THE_CLIENT_SETUP='«{key}»'"
    team, channel = _drawn(8, lower.upper()), _drawn(8, lower.upper())
    yield f"webhook «https://hooks.slack.com/services/T{team}/B{channel}/{_drawn(24)}» answered 404"
    yield f"read key: «{_pem()}»\nok"
    yield f"«{_pem('EC ')}»"
    yield f"«{_pem('OPENSSH ')}» and «{_pem('')}»"
    yield f"header was Bearer «{_drawn(40)}» and the scope is read"


def _named() -> Iterator[str]:
    for name in ("password", "passwd", "DB_PASSWORD", "client_secret", "api_key", "apiKey", "X-Api-Key", "auth_token"):
        yield f"connect failed: host=db-1 {name}=«{_drawn(12)}» port=5432"
        yield f'{{"user":"bob","{name}":"«{_drawn(16)}»","n":1}}'
        yield f"config {{'{name}': '«{_drawn(16)}»', 'debug': True}}"
        yield f"{name}: «{_drawn(14)}»"
    yield f"GET /callback?code=«{_drawn(40)}»&state=ok HTTP/1.1"
    yield f"https://bucket.s3.amazonaws.com/k?X-Amz-Expires=300&X-Amz-Signature=«{_drawn(64, '0123456789abcdef')}»"
    yield f"https://x.blob.core.windows.net/c?sv=2024-11-04&sig=«{_drawn(44)}»"
    yield f"GET https://api.example.com/v1/items?access_token=«{_drawn(32)}»&limit=50"
    yield "opening postgresql://«app:s3cr3t»@db.internal:5432/shop"
    yield "redis://«:p4ssw0rd»@cache:6379/0 unreachable"
    yield "mongodb+srv://«admin:hunter2»@cluster0.example.net/test?retryWrites=true"
    yield "clone https://«oauth2:abcdef123456»@git.example.com/group/project.git"
    yield "amqp://«guest:gu3st»@mq:5672//"
    yield f"> Authorization: Basic «{base64.b64encode(b'alice:open sesame').decode()}»"
    yield f'"authorization": ["Bearer «{_drawn(30)}»"]'
    yield f"Cookie: «sessionid={_drawn(32)}; csrftoken={_drawn(32)}»"
    yield f"Set-Cookie: «sid={_drawn(26)}; Path=/; HttpOnly»"
    yield "login attempt with password «hunter2»".replace("password ", "password=")
    yield "mysql -u root --password=«Tr0ub4dor&3» shop".replace("&3", "3")
    yield "running deploy --token «d41d8cd9f3» --region eu-west-1"
    yield f"AccountName=shop;AccountKey=«{_drawn(86)}»;EndpointSuffix=core.windows.net"
    yield "Server=tcp:db;User ID=sa;Password=«Pa55w.rd»;Encrypt=true"
    yield 'payload: {\\"password\\": \\"«opensesame1»\\", \\"user\\": \\"ali\\"}'
    yield f"aws_secret_access_key = «{_drawn(40)}»"
    yield "INSERT INTO users SET password = '«correct horse»' WHERE id = 7"
    yield "<login><user>bob</user><password>«s3same»</password></login>"
    yield "pin: «4711», attempts: 2"
    yield "otp=«493021» accepted"
    yield 'cvv: "«123»", month: 4'
    yield "passphrase='«open the gate»' read from prompt"
    yield "secret: «b7e23ec29af22b0b4e41da31e868d572»"
    yield "JWT_SECRET=«changeme-9» in use"
    yield "token=«abcdef123456», expires in 3600"
    yield 'password="«$ecret123»", user="bob"'
    yield "password: '«secret»', api_key='«hidden treasure»'"
    yield 'the DSN "https://«0123456789abcdef0123456789abcdef»@o1.ingest.example.com/5" is set'
    yield "Proxy-Authorization: Digest «username=bob,response=6629fae49393a05397450978507c4ef1»".replace(
        "username=bob,response=", ""
    )


def _spans_and_prompts() -> Iterator[str]:
    yield "Hi, my password is «hunter22», why can I not log in?"
    yield "The API key is «9f8a7b6c5d4e», please call the service for me"
    yield "My card number is «4111 1111 1111 1111» and I live in Bonn."
    yield "Write to «carol@example.org» and ask for the invoice 2024-113."
    yield '[{"role":"user","parts":[{"type":"text","content":"my email is «dave@example.com»"}]}]'
    yield '{"tool":"http_get","arguments":{"headers":{"Authorization":"Bearer «abc123def456ghi789»"}}}'
    yield "OperationalError: could not connect to postgresql://«shop:pw1»@db/shop"
    yield (
        "Traceback (most recent call last):\n"
        '  File "/srv/app/client.py", line 31, in call\n'
        '    client = Client("https://api.example.com", token="«t0ps3cr3t»")\n'
        "AuthError: token was refused"
    )
    yield "ValueError: bad address: 'mallory@@', did you mean «mallory@example.com»?"
    yield "SELECT * FROM customers WHERE email = '«erin@example.com»' LIMIT 1"
    yield "POST /users/«frank@example.com»/reset 204"


def look_alikes() -> Iterator[str]:
    """Lines without a secret."""
    digits, hexes = string.digits, "0123456789abcdef"
    for _ in range(20):
        uuid = f"{_drawn(8, hexes)}-{_drawn(4, hexes)}-4{_drawn(3, hexes)}-a{_drawn(3, hexes)}-{_drawn(12, hexes)}"
        yield f"request {uuid} took {_rnd.random():.6f} s"
        yield f"trace_id={_drawn(32, hexes)} span_id={_drawn(16, hexes)} sampled"
        yield f"sha256:{_drawn(64, hexes)} pulled"
        yield f"commit {_drawn(40, hexes)} by bot"
        yield f"order {_drawn(8, digits)} accepted, invoice INV-2026-{_drawn(6, digits)}"
        yield f"2026-11-21T16:33:{_rnd.randrange(60):02}.{_drawn(6, digits)}Z INFO started"
        yield f"start=17{_drawn(17, digits)} end=17{_drawn(17, digits)}"
        yield f"millis 17{_drawn(11, digits)}, offset {_drawn(9, digits)}, bytes {_drawn(10, digits)}"
    yield from (
        "GET /orders/8817362 HTTP/1.1 200 5123 0.031",
        "upgraded urllib3 2.2.1 -> 2.5.0, openssl 3.0.13, kernel 6.8.0-1021-aws",
        "2026-11-21 16:33:41,123 - shop.views - INFO - 20 orders in 0.25 s",
        "Sat Nov 21 16:33:41 UTC 2026 +0000",
        "10.12.200.7:443 -> 192.168.0.1:55012 established",
        "fe80::1ff:fe23:4567:890a is up",
        "pass: 12/12 tests, otp: valid, secrets: 3 loaded, session key rotated: yes",
        "input_tokens=1500 output_tokens=320 max_tokens=4096 token_count: 1820",
        '{"usage": {"prompt_tokens": 12, "completion_tokens": 40, "total_tokens": 52}}',
        "gen_ai.usage.input_tokens: 500",
        "author: Jane Austen, passenger=12, primary_key=id, monkey: george, keyboard=de",
        "foreign_key=orders.customer_id, sort_key: created_at, partition_key=eu",
        "password is required",
        "Invalid password: authentication failed for user bob",
        "password: must be at least 12 characters",
        "token expired: refreshing",
        "token: expired",
        "auth: failed, retrying",
        "authorization: denied by policy",
        "secret not found: shop/db in namespace prod",
        "password=None, token=null, api_key='', secret=****",
        "password={password} token=%s key=${API_KEY}",
        "log.record.template: login of <*> with password=<*>",
        "UPDATE users SET password = $1 WHERE token = ? AND secret = :secret",
        "client = Client(api_key=api_key, token=self._token, password=settings.DB_PASSWORD)",
        "def login(user: str, password: str, token: Optional[str] = None) -> Session:",
        '    api_key=os.environ["API_KEY"],',
        "    token = get_token(scope)",
        "password_reset=true password_length=12 token_type=bearer secret_name=db",
        "auth.method=basic auth_time=12 authenticated=true",
        "csrf check passed, cookie_consent=true, cookies_enabled: yes",
        "key=value; a=b; size=10",
        "cache key: orders:page:3 hit",
        "Keyboard interrupt: received signal 2",
        "compass: north, bypass=true, passed: 10, failed: 0",
        "cursor next_token=eyAgICAx done",
        "key_id=3 key_usage=sign public_key_size=2048",
        "git@github.com:acme/shop.git fetched",
        "ssh://git@github.com/acme/shop.git",
        "http://localhost:4318/v1/traces",
        "https://shop.example.com/items?page=2&sort=price&code=200",
        "npm install react@18.2.0 @types/node@20.1.0 lodash@4.17.21.tgz",
        "logo@2x.png, icon@3x.webp",
        "getty@tty1.service started, user@1000.service stopped",
        "@app.route('/login') @pytest.fixture a @ b",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\nMFkwEw\n-----END PUBLIC KEY-----",
        "sk-toggleable-control-and-label-arrow of the estimator",
        "task-scheduler-with-a-very-long-name-of-many-words started",
        "DE12 is no account, GB29 neither, nor is FR76 1234",
        "EAN 4006381333931, ISBN 978-3-16-148410-0",
        "flight LH 123-45, part 123-45-67890, section 12-34-5678",
        "score 0.4111111111111111 of 1.0, ratio 4111111111.1111111",
        "pi=3.14159265358979323846, e=2.718281828459045",
        "coordinates 52.520008, 13.404954; bbox (12.3, 45.6, 78.9, 10.1)",
        "exit code 137, signal 9, pid 4711, tid 140735123456789",
        "memory 1073741824 of 4294967296 bytes, 25 %",
        "range 1000-2000, 2000-3000, 3000-4000",
        "retry 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
        "0000 0000 0000 0000",
        "1234 5678 9012 3456 is a sample",
        "frame 0x7ffd5e8a3b40 in libc.so.6",
        '  File "/usr/lib/python3.11/site-packages/opentelemetry/sdk/trace/export/__init__.py", line 214, in export',
        "ModuleNotFoundError: No module named 'really_long_module_name_with_underscores'",
        "KeyError: 'password'",
        "TypeError: login() missing 1 required positional argument: 'password'",
        "AssertionError: assert token == expected",
        "arn:aws:secretsmanager:eu-west-1:123456789012:secret:shop/db-AbCdEf",
        "s3://bucket/path/to/key=value/part-00000.parquet",
        "phase 2026-11-21, window +02:00, offset +1234",
        "+15 points, -3 %, +100.5",
        "version 1.2.3-rc.1+build.20261121",
        "Bearer authentication is required for this resource",
        "Basic configuration loaded",
        "The order was placed on Monday; its number is 2026-000-1234.",
        "gcc -O2 -Wall --sysroot /opt --token-limit 500 file.c",
        "k8s pod shop-7d9c6b5f4d-x2x9k in ns prod restarted",
        "docker.io/library/python:3.11-slim@sha256 digest ok",
        'etag W/"33a64df551425fcc55e4d42a148795d9f25f89d4"',
        "session.id=7f3a2b enduser.id=42",
        "Secretary: Ms. Smith, Tokenizer: bpe, Credential type: oauth",
        "base64: aGVsbG8gd29ybGQgaGVsbG8gd29ybGQ=",
        "SECRET_KEY_FALLBACKS=[]",
        "ttl=300 tokens_per_second=41.7 time_to_first_token=0.21",
        "eyJ is how tokens begin",
    )
