"""What tells a secret by how it looks: one rule for each kind. Loaded with the first text that may hold one.

A rule gives the places in a text. Patterns are linear in the text: what repeats is bounded or never given back, and no
match begins within a run of what it would consume.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

from otelweir.pipeline.redact import checks
from otelweir.pipeline.redact.actions import PLACE
from otelweir.pipeline.redact.hint import set_of

Spans: TypeAlias = Iterator[tuple[int, int]]
Rule: TypeAlias = Callable[[str], Spans]

# --- e-mail addresses -----------------------------------------------------------------------------------------------

_DOMAIN: Final = re.compile(r"(?:@|%40)((?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8})([^\W\d_]{2,24})(?![\w-])")
_LOCAL: Final = "._%+-'"
_FILES: Final = set_of(
    "png jpg jpeg gif svg webp ico css js mjs ts jsx tsx map py pyc so dll exe sh json yaml yml toml html htm xml "
    "txt md csv zip tgz gz tar whl jar service socket timer target mount slice lock log tmp "
)
"""Endings of files and of systemd's units, as in `logo@2x.png` and `getty@tty1.service`."""


def _email(text: str) -> Spans:
    for found in _DOMAIN.finditer(text):
        at = begin = found.start()
        least = max(0, at - 64)
        while begin > least and ((sign := text[begin - 1]).isalnum() or sign in _LOCAL):
            begin -= 1
        while begin < at and text[begin] in ".-'":
            begin += 1
        if begin == at or found[2].lower() in _FILES or text[begin:at] == "git":
            continue
        if found[1].replace(".", "").isdigit():  # package@1.2.3.dev
            continue
        if text[max(0, begin - 3) : begin] != "://":
            yield begin, found.end()


# --- numbers --------------------------------------------------------------------------------------------------------

# Patterns begin with what they take, and look behind it: so `re` finds at once where to try them.
_DIGITS: Final = re.compile(r"[0-9](?<![\w.].)(?:[ -]?[0-9])*+")
_GROUP: Final = re.compile("[0-9]+")
_GOES_ON: Final = re.compile(r"\w|\.[0-9]")
_GROUPINGS: Final = frozenset(((4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3), (4, 4, 4, 1), (4, 5, 6), (4, 4, 5)))


def _card(text: str) -> Spans:
    for found in _DIGITS.finditer(text):
        if found.end() - found.start() < 13:
            continue
        run = found[0]
        groups = [part.span() for part in _GROUP.finditer(run)]
        if _GOES_ON.match(text, found.end()):
            groups.pop()
        place = 0
        while place < len(groups):
            for count in (1, 5, 4, 3):
                window = groups[place : place + count]
                sizes = tuple(end - begin for begin, end in window)
                if len(window) != count or (count > 1 and sizes not in _GROUPINGS):
                    continue
                begin, end = window[0][0], window[-1][1]
                if end - begin <= 23 and checks.card(run[begin:end].replace(" ", "").replace("-", "")):
                    yield found.start() + begin, found.start() + end
                    place += count - 1
                    break
            place += 1


_IBAN: Final = re.compile(r"([A-Z]{2})(?<![A-Za-z0-9]..)[0-9]{2}(?=((?:[ ]?[A-Z0-9]){11,30}+))")


def _iban(text: str) -> Spans:
    for found in _IBAN.finditer(text):
        rest = checks.iban_length(found[1]) - 4
        if rest < 0:
            continue
        end = found.end()
        signs = 0
        for sign in found[2]:
            if signs == rest:
                break
            signs += sign != " "
            end += 1
        if (
            signs == rest
            and not text[end : end + 1].isalnum()
            and checks.iban(text[found.start() : end].replace(" ", ""))
        ):
            yield found.start(), end


_SSN: Final = re.compile(r"[0-9](?<![\w.-].)([0-9]{2})-([0-9]{2})-([0-9]{4})(?![\w-]|\.[0-9])")
_SSN_NAMED: Final = re.compile(
    r"(?:ssn|social.security(?:.number|.no\.?)?)\W{0,5}(?:is\W{1,3})?([0-9]{3})[ -]?([0-9]{2})[ -]?([0-9]{4})(?!\w)",
    re.I,
)


def _ssn(text: str) -> Spans:
    for found in _SSN.finditer(text):
        if checks.social_security_number(text[found.start()] + found[1], found[2], found[3]):
            yield found.span()
    if " " in text and ("SSN" in text or "ssn" in text or "ecurity" in text):
        for found in _SSN_NAMED.finditer(text):
            before = text[max(0, found.start() - 1) : found.start()]
            if not before.isalpha() and checks.social_security_number(found[1], found[2], found[3]):
                yield found.start(1), found.end(3)


_PHONE: Final = re.compile(
    r"[+(1-9](?<![\w+.-].)(?:"
    r"(?<=\+)[1-9][0-9]{0,2}+[ .-]?(?:\([0-9]{1,4}\)[ .-]?)?[0-9](?:[ ./-]?[0-9]){4,12}+(?!\w)"
    r"|(?:(?<=\+)1[ .-]\(?|(?<=1)[ .-]\(?|(?<=\()|(?<=[2-9]))(?:(?<=[2-9])|[2-9])[0-9]{2}(?:(\) ?)|([.-]))"
    r"[0-9]{3}(?(2)\2|[ .-])[0-9]{4}(?![\w-]|\.[0-9])"
    r")"
)
_PHONE_NAMED: Final = re.compile(
    r"(?:phone|mobile|cell|tel|téléphone|telefon|telefono|telefax|fax|handy|whatsapp)"
    r"(?:[ _-]?(?:number|no|nr|nummer))?\.?\\{0,7}[\"']?[^\S\n]{0,3}+[:=]?[^\S\n]{0,3}+\\{0,7}[\"']?"
    r"(\(?[0-9](?:[ ()./-]{0,2}[0-9]){6,14}+)(?![\w-]|\.[0-9])",
    re.I,
)
_PHONE_ASKED: Final = re.compile(
    r"(?:phone|call|ring|text|reach|dial)(?: (?:me|us|him|her|them))?(?: back)?(?: on| at|:) "
    r"(0[0-9](?:[ ()./-]{0,2}[0-9]){7,12}+)"
    r"(?![\w-]|\.[0-9])",
    re.I,
)
_PHONE_ENCODED: Final = re.compile(r"%2B([1-9][0-9]{7,14})(?![\w-])")
_PHONE_SPACED: Final = re.compile(r"[2-9](?<![\w+.-].)[0-9]{2} [2-9][0-9]{2} [0-9]{4}(?![\w-]|\.[0-9]| [0-9])")
_CALLS: Final = ("call", "Call", "ring", "Ring", "dial", "reach", "text me", "sms", "SMS", "phone", "Phone")
_PHONES: Final = ("phon", "obile", "ell", "Tel", "tel", "ax", "andy", "app", "PHON", "TEL")


def _phone(text: str) -> Spans:
    for found in _PHONE.finditer(text):
        digits = sum(map(str.isdigit, found[0]))
        if found[0][0] != "+" or 8 <= digits <= 15:
            yield found.span()
    if any(stem in text for stem in _PHONES):
        for found in _PHONE_NAMED.finditer(text):
            if not text[max(0, found.start() - 1) : found.start()].isalpha() or text[found.start()].isupper():
                yield found.span(1)
    if " " in text and any(word in text for word in _CALLS):
        for found in _PHONE_SPACED.finditer(text):
            yield found.span()
        for found in _PHONE_ASKED.finditer(text):
            yield found.span(1)
    if "%2B" in text:
        for found in _PHONE_ENCODED.finditer(text):
            yield found.span(1)


# --- secrets --------------------------------------------------------------------------------------------------------

_JWT: Final = re.compile(r"(?<![A-Za-z0-9_-])(eyJ[A-Za-z0-9_-]{8,}+)\.[A-Za-z0-9_-]{4,}+(?:\.[A-Za-z0-9_-]*+){0,3}")


def _jwt(text: str) -> Spans:
    if "eyJ" not in text:
        return
    for found in _JWT.finditer(text):
        if checks.jwt_header(found[1]):
            yield found.span()


_PEM: Final = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END: Final = re.compile(r"-----END [A-Z0-9 ]{0,60}-----")
_PEM_BODY: Final = re.compile(r"[A-Za-z0-9+/=\s\\:,-]*+")


def _pem(text: str) -> Spans:
    done, closed = 0, True
    for found in _PEM.finditer(text):
        if found.start() < done:
            continue
        end = _PEM_END.search(text, found.end()) if closed else None
        if end is None:
            closed = False  # cut off: as far as it may be a key
            body = _PEM_BODY.match(text, found.end())
            done = body.end() if body else len(text)
        else:
            done = end.end()
        yield found.start(), done


_USER_INFO: Final = re.compile(r"://((?:[^\s/?#:@\"'<>\\]{0,64}+:[^\s/\"'<>\\@]{1,64}+@)?[^\s/?#\"'<>\\]*+)")


def _url(text: str) -> Spans:
    for found in _USER_INFO.finditer(text):
        user, sign, _ = found[1].rpartition("@")
        # A name alone is no secret, a token in its place is.
        if not sign or not (":" in user or len(user) >= 16):
            continue
        name, _, password = user.partition(":")
        if (password in ("", "***") and len(name) < 16) or user.startswith("[redacted:") or PLACE.fullmatch(password):
            continue
        yield found.start(1), found.start(1) + len(user)


_RUN: Final = re.compile(r"[A-Za-z0-9_.:/+=~$-]{20,}+")
_DIGIT: Final = re.compile("[0-9]")
_LETTERS: Final = re.compile("hf_|AKIA|ASIA|AIza")
"""In keys that may have no digit."""

_KEYS: Final = re.compile(
    r"(?:(?<![A-Za-z0-9])|(?<=%[2-3][0-9A-F]))(?:"
    r"(?:hf_[A-Za-z]{34}(?![\w-])|(?P<loose>sk-(?:proj-|svcacct-|admin-|ant-(?:api|admin)[0-9]{2}-|or-v1-|lf-)?[A-Za-z0-9_-]{20,}+"
    r"|(?:glpat|gldt|glrt|glsoat|glcbt|xox[abeoprs]|xapp|pplx|xai|npg|key|nvapi|tskey|rubygems)-[A-Za-z0-9-][A-Za-z0-9_-]{18,}+"
    r"|(?:npm|hf|gsk|r8|sbp|ntn|figd|glsa|glc|lsv2_[a-z]{2}|lin_api|dckr_pat|dckr_oat|do[opr]_v1|rubygems|ops|fm[12]"
    r"|secret|shpat|shpss|shpca|shppa|pscale_(?:pw|tkn|oauth)|sntry[su]|vercel|whsec|[sr]k_(?:live|test)"
    r"|gh[opsur]|github_pat|sq[apu]|sess|re|phc|phx|apify_api|tvly|e2b|lf[sp]k|cal_live)_[A-Za-z0-9_=/+-]{20,}+)"
    r"|(?:hvs|hvb|dp\.(?:pt|st|sa|ct)|ya29|SG|sl)\.[A-Za-z0-9_.-]{20,}+"
    r"|pypi-AgE[A-Za-z0-9_-]{30,}+"
    r"|sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{22,}+"
    r"|GOCSPX-[A-Za-z0-9_-]{20,}+"
    r"|NRAK-[A-Z0-9]{27}|PMAK-[0-9a-f]{24}-[0-9a-f]{34}"
    r"|ATATT3[A-Za-z0-9_=-]{40,}+|ATBB[A-Za-z0-9]{32}"
    r"|dapi[0-9a-f]{32}|SK[0-9a-f]{32}|[0-9a-f]{32}-us[0-9]{1,2}"  # Databricks, Twilio, Mailchimp
    r"|AIza[A-Za-z0-9_-]{35}"
    r"|(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"
    r"|(?:bot)?[0-9]{8,10}:AA[A-Za-z0-9_-]{33}"  # Telegram
    r"|[MNO][A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38}"  # Discord
    r"|[A-Za-z0-9_-]{11,22}:APA91b[A-Za-z0-9_-]{60,}+"  # Firebase
    r"|[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{60,}+"
    r"|pat[A-Za-z0-9]{14}\.[0-9a-f]{64}"  # Airtable
    r"|EAA[A-Za-z][A-Za-z0-9_-]{55,}+|EAACEdEose0cBA[A-Za-z0-9]{8,}+|IGQV[A-Za-z0-9_-]{60,}+"  # Meta and Square
    r"|AAAAAAAAAAAAAAAAAAAAA[A-Za-z0-9_-]{30,}+"  # X
    r"|access_token\$(?:production|sandbox)\$[0-9a-z]{16}\$[0-9a-f]{32}"
    r"|cio[A-Za-z0-9]{32}|oy2[a-z0-9]{43}|AGE-SECRET-KEY-1[A-Z0-9]{50,58}|AC[0-9a-f]{32}:[0-9a-f]{32}|SWMTKN-1-[a-z0-9-]{50,}+"
    r"|[sp]k\.eyJ[A-Za-z0-9_-]{40,}+\.[A-Za-z0-9_-]{20,}+"  # Mapbox
    r"|pbkdf2_sha(?:1|256|512)\$[0-9]{1,9}\$[A-Za-z0-9]{1,64}\$[A-Za-z0-9+/=]{20,}+"
    r")(?![A-Za-z0-9])"
    r"|https://hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9_/+-]{20,}+"
    r"|https://(?:\w{1,20}\.)?discord(?:app)?\.com/api/webhooks/[0-9]{15,20}/[A-Za-z0-9_-]{20,}+"
    r"|\$2[abxy]\$[0-9]{2}\$[A-Za-z0-9./]{53}"
    r"|\$[156y]\$[^\s\"'$]{1,64}\$[A-Za-z0-9./]{22,}+"
    r")"
)
_PASSWORD_HASH: Final = re.compile(
    r"\$argon2(?:id|i|d)\$v=[0-9]{1,3}\$m=[0-9]{1,9},t=[0-9]{1,5},p=[0-9]{1,4}\$[A-Za-z0-9+/]{8,}+\$[A-Za-z0-9+/]{16,}+"
)
_SMTP: Final = re.compile(r"AUTH (?:PLAIN|LOGIN) ([A-Za-z0-9+/]{8,}+={0,2})")
_UNSEAL: Final = re.compile(r"nseal [Kk]ey [0-9]{1,2}: ([A-Za-z0-9+/=_-]{20,}+)")
_BEARER: Final = re.compile(r"(?<![A-Za-z0-9])(?:bearer|basic)[^\S\n]{1,3}([A-Za-z0-9+/._~=-]{16,}+)", re.IGNORECASE)


def _key(text: str) -> Spans:
    for run in _RUN.finditer(text):
        if _DIGIT.search(text, run.start(), run.end()) is None and not _LETTERS.search(text, run.start(), run.end()):
            continue
        for found in _KEYS.finditer(text, run.start(), run.end()):
            given = found["loose"]
            if given is None or checks.random_looking(given[4:]):
                yield found.span()
    if "$argon2" in text:
        for found in _PASSWORD_HASH.finditer(text):
            yield found.span()
    if "nseal " in text:
        for found in _UNSEAL.finditer(text):
            yield found.span(1)
    if "AUTH " in text:
        for found in _SMTP.finditer(text):
            yield found.span(1)
    if "earer" in text or "asic" in text or "EARER" in text:
        for found in _BEARER.finditer(text):
            if checks.random_looking(found[1]):
                yield found.span(1)


# --- network addresses ----------------------------------------------------------------------------------------------

_IPV4: Final = re.compile(r"(?<![\w.-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w-]|\.[0-9])")
_IPV6: Final = re.compile(r"(?<![\w:.])[0-9A-Fa-f:]{2,39}+(?:(?<=:)[0-9.]{7,15}+)?(?![\w:])")


def _ipv4(text: str) -> Spans:
    for found in _IPV4.finditer(text):
        if all(int(part) < 256 for part in found[0].split(".")):
            yield found.span()


def _ipv6(text: str) -> Spans:
    from ipaddress import ip_address  # few need it

    for found in _IPV6.finditer(text):
        if found[0].count(":") < 2 or found[0] == "::":
            continue
        try:
            ip_address(found[0])
        except ValueError:
            continue
        yield found.span()


RULES: Final[Mapping[str, Rule]] = {
    "pem": _pem,
    "jwt": _jwt,
    "key": _key,
    "url": _url,
    "email": _email,
    "card": _card,
    "iban": _iban,
    "ssn": _ssn,
    "phone": _phone,
    "ipv4": _ipv4,
    "ipv6": _ipv6,
}
"""By name, the more certain first: where two begin at the same place, the earlier one names it."""


def matches(pattern: re.Pattern[str]) -> Rule:
    """The rule of a pattern: what it matches, or its first group where it has one."""

    def find(text: str) -> Spans:
        for found in pattern.finditer(text):
            yield found.span(1) if pattern.groups and found[1] is not None else found.span()

    return find
