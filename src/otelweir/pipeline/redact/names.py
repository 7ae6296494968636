"""Which names say that a secret follows: `password`, `X-Api-Key`, `dbPassword`, and not `token_count` or `monkey`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from typing import Final

from otelweir.pipeline.redact.hint import set_of

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_]+")

_SECRETS: Final = (
    *("password", "passwd", "pwd", "passphrase", "passcode", "secret", "secrets", "token", "apikey", "credential"),
    *("credentials", "authorization", "cookie", "cookies", "jwt", "ssn", "cvv", "cvc", "otp", "totp", "bearer"),
    *("api key", "access key", "private key", "secret key", "encryption key", "signing key", "account key"),
    *("master key", "session key", "auth key", "shared key", "ssh key", "license key", "service key", "admin key"),
    *("social security number", "social security", "card number", "card cvc", "security code"),
    *("verification code", "recovery code", "backup code", "one time code", "pin code", "access code", "2fa code"),
    *("mfa code", "seed phrase", "recovery phrase", "mnemonic", "hmac key", "fernet key", "app key", "unseal key"),
    *(
        "psk",
        "sessionid",
        "jsessionid",
        "phpsessid",
        "honeycomb team",
        "sonar login",
        "subscription key",
        "consumer key",
        "oauth signature",
        "msisdn",
        "phone number",
        "mobile number",
    ),
    *("passwort", "kennwort", "mot de passe", "contraseña", "contrasena", "senha", "wachtwoord", "de passe"),
)
"""Words that have to follow one another. Written as one word they mean the same."""

_LAST: Final = ("auth", "pin", "pass", "passw", "pw", "csrf", "xsrf", "phone")
"""Words that mean a secret only at the end of a name."""

_WITHIN: Final = ("password", "passwd", "passphrase", "apikey", "secretkey", "accesskey", "privatekey")
"""What makes a word a secret wherever it stands in it: `mysqlpassword`."""

_ENDS: Final = (
    "secret",
    "authtoken",
    "accesstoken",
    "credentials",
    "pw",
    "storepass",
    "keypass",
    "requirepass",
    "masterauth",
    "dbpass",
    "userpass",
    "rootpass",
    "bindpass",
)

_ABOUT: Final = set_of(
    "about age alg algorithm algorithms arn at attempt attempts auth authority bucket budget ca categories "
    "category cert certificate changed changes class code codes config consent count counts created digest "
    "domain enabled encoding endpoint error errors exists expiration expired expires expiring expiry field file "
    "filename files for format found generated hint host id ids in index info input invalid is issued issuer "
    "kind label last latency left len length level lifetime limit limits location manager max method min missing "
    "mode name names needed null number ok output owner param parameter params path per policy position "
    "preferences prefix present price provider rate ratio ref refreshed region remaining required reset result "
    "results rotated rotation rule rules schema scheme scope scopes score set size source state status stdin "
    "step store strategy strength success suffix sum table text ttl type types unit updated uri url usage use "
    "used uuid valid validity verified version window "
)
"""Words after a secret's that say something about it, and give nothing away."""

_COUNTING: Final = set_of(
    "accepted audio avg cache cached completion continuation count first fork generated has image input is last "
    "max mean min missing n new next no num number of out output page pagination pad per prompt reasoning "
    "rejected sync start stop text thinking total unk used vocab eos bos special "
)
"""Words before `token` that make it a piece of text, a count, or a mark in a list."""

_NUMERIC: Final = set_of("password passwd pwd passphrase passcode pin otp totp ssn cvv cvc secret ") | {
    "social security number",
    "social security",
    "card number",
    "security code",
    "card cvc",
    "verification code",
    "recovery code",
    "backup code",
    "one time code",
    "pin code",
    "access code",
    "2fa code",
    "mfa code",
    "msisdn",
    "phone number",
    "mobile number",
    "phone",
    "pw",
    "passwort",
    "kennwort",
}
"""Secrets that may be numbers; a number called `token` is a count."""

_MAX_KNOWN: Final = 4096
_MAX_NAME: Final = 256


class Names:
    """Tells names of secrets from others.

    Args:
        more: Further names: words that have to follow one another in a name (`customer code`), or, with a `*`, a
            pattern for the whole name (`x-*-ref`).
        allowed: Whole names that are no secret, or patterns of them; they win.
    """

    def __init__(self, more: Iterable[str] = (), allowed: Iterable[str] = ()) -> None:
        more = tuple(more)
        self._more = _Entries(more)
        self._allowed = _Entries(allowed)
        self._known: dict[str, tuple[bool, bool]] = {}
        self.stems = tuple(dict.fromkeys((*_STEMS, *(stem for entry in more if (stem := _stem(entry))))))
        """Lower-case texts of which every name of a secret has one, unless an entry is all pattern."""

    def __repr__(self) -> str:
        return f"<Names {len(self._more)} more, {len(self._allowed)} allowed>"

    def secret(self, name: str) -> bool:
        """Whether the value of this name is a secret."""
        return self._of(name)[0]

    def secret_number(self, name: str) -> bool:
        """Whether the value is a secret even if it is a number."""
        return self._of(name)[1]

    def _of(self, name: str) -> tuple[bool, bool]:
        known = self._known.get(name)
        if known is None:
            known = self._found(name)
            if len(name) <= _MAX_NAME:
                if len(self._known) >= _MAX_KNOWN:
                    self._known.clear()
                self._known[name] = known
        return known

    def _found(self, name: str) -> tuple[bool, bool]:
        # What makes it a secret stands at the end, where names come from somewhere that makes them long.
        words = words_of(name[-_MAX_NAME:])
        if not words or self._allowed.whole(name, words):
            return False, False
        if self._more.within(name, words):
            return True, True
        found = secret_in(words)
        return found is not None, found in _NUMERIC


class _Entries:
    """What somebody listed: sequences of words, and patterns."""

    def __init__(self, entries: Iterable[str]) -> None:
        self._sequences: list[tuple[str, ...]] = []
        self._patterns: list[re.Pattern[str]] = []
        for entry in entries:
            if "*" in entry:
                self._patterns.append(wildcard(entry))
            elif words := words_of(entry):
                self._sequences.append(words)

    def __len__(self) -> int:
        return len(self._sequences) + len(self._patterns)

    def whole(self, name: str, words: tuple[str, ...]) -> bool:
        """Whether an entry is this name."""
        return any(pattern.fullmatch(name[:_MAX_NAME]) for pattern in self._patterns) or words in self._sequences

    def within(self, name: str, words: tuple[str, ...]) -> bool:
        """Whether an entry is this name, or is in it."""
        joined = "".join(words)
        return self.whole(name, words) or any(
            _place(words, sequence) >= 0 or "".join(sequence) == joined for sequence in self._sequences
        )


def wildcard(entry: str) -> re.Pattern[str]:
    """A pattern in which `*` stands for anything, whatever the case; linear, as each `*` takes the first fit."""
    literal = re.sub(r"\*+", "*", entry)
    # fnmatch writes each inner `*` as an atomic group, so it never comes back to it.
    return re.compile(translate(literal.replace("[", "[[]").replace("?", "[?]")), re.IGNORECASE)


def words_of(name: str) -> tuple[str, ...]:
    """The words of a name, in lower case, however it is written.

    >>> words_of("X-Api-Key"), words_of("dbPassword"), words_of("APIKey")
    (('x', 'api', 'key'), ('db', 'password'), ('api', 'key'))
    """
    return tuple(word.lower() for word in _WORD.findall(name))


def secret_in(words: tuple[str, ...]) -> str | None:
    """The secret that the words of a name speak of; None for none."""
    for secret, sequence in _SEQUENCES:
        place = _place(words, sequence)
        if place < 0:
            continue
        after = words[place + len(sequence) :]
        if sequence == ("token",) and place and words[place - 1] in _COUNTING:
            continue
        if not _ABOUT.intersection(after):
            return secret
    if words[-1] in _LAST:
        return words[-1]
    for place, word in enumerate(words):
        if any(part in word for part in _WITHIN) or (word.endswith(_ENDS) and word not in ("secret", "credentials")):
            return None if _ABOUT.intersection(words[place + 1 :]) else "password"
    return None


def _place(words: tuple[str, ...], sequence: tuple[str, ...]) -> int:
    """Where a sequence begins in the words, the last time; -1 where it does not."""
    length = len(sequence)
    for place in range(len(words) - length, -1, -1):
        if words[place : place + length] == sequence:
            return place
    return -1


_SEQUENCES: Final = [(secret, words_of(secret)) for secret in _SECRETS] + [
    (secret, (secret.replace(" ", ""),)) for secret in _SECRETS if " " in secret
]

_STEMS: Final = (
    *("pass", "pw", "secret", "token", "key", "cred", "auth", "cookie", "jwt", "ssn", "cv", "otp", "bearer", "number"),
    *("code", "pin", "srf", "sig", "psk", "sessionid", "sessid", "phrase", "kennwort", "contrase", "honeyc", "appid"),
)


def _stem(entry: str) -> str:
    """What a name that fits an entry has in it, in lower case."""
    return max(re.split(r"[^a-z0-9]+", entry.lower()), key=len)
