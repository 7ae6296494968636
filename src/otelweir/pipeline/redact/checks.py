"""What tells a secret from something that only looks like one: check digits, number ranges, and what is inside."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Final

_ISSUERS: Final = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
    r"|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[68]\d)\d{11}"  # Diners Club
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}(?:\d{3})?"  # Discover
    r"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
    r"|62\d{14,17}"  # UnionPay
)

_IBANS: Final = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 "
    "ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 "
    "LB28 LC32 LI21 LT20 LU20 LV21 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 "
    "RO24 RS22 SA24 SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 "
)
_IBAN_LENGTHS: Final = {one[:2]: int(one[2:]) for one in _IBANS.split()}
"""Length of an IBAN by country. Source: the IBAN registry of SWIFT (ISO 13616)."""

_MAX_HEADER: Final = 4096


def card(digits: str) -> bool:
    """Whether digits are a payment card's number: an issuer's range and length, and the check digit of ISO 7812.

    >>> card("4111111111111111"), card("4111111111111112")
    (True, False)
    """
    return _ISSUERS.fullmatch(digits) is not None and luhn(digits) and len(set(digits)) > 1


def luhn(digits: str) -> bool:
    """Whether the last digit is right, as Luhn's formula has it."""
    total = 0
    for place, sign in enumerate(reversed(digits)):
        number = int(sign)
        if place % 2:
            number = number * 2 - 9 if number > 4 else number * 2
        total += number
    return total % 10 == 0


def iban_length(country: str) -> int:
    """How many characters an IBAN of a country has; 0 where there are none."""
    return _IBAN_LENGTHS.get(country, 0)


def iban(text: str) -> bool:
    """Whether a text without spaces is an IBAN: the country's length, and a remainder of 1 by ISO 7064 (mod 97).

    >>> iban("DE89370400440532013000"), iban("DE88370400440532013000")
    (True, False)
    """
    if len(text) != iban_length(text[:2]):
        return False
    return int("".join(str(int(sign, 36)) for sign in text[4:] + text[:4])) % 97 == 1


def social_security_number(area: str, group: str, serial: str) -> bool:
    """Whether the parts of a US social security number are in the ranges that are given out.

    Source: https://www.ssa.gov/employer/randomization.html
    """
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def jwt_header(part: str) -> bool:
    """Whether the first part of a token is the header of a JSON Web Token (RFC 7515)."""
    if len(part) > _MAX_HEADER:
        return True  # nobody else writes so much after the three letters
    try:
        header = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return False
    return isinstance(header, dict) and bool({"alg", "typ", "enc", "kid"} & header.keys())


def random_looking(text: str) -> bool:
    """Whether a text may have come out of a generator of keys: digits and letters, and not a few over and over.

    >>> random_looking("9f8Aq27LmZ"), random_looking("toggleable-control-text")
    (True, False)
    """
    return any(map(str.isdigit, text)) and any(map(str.isalpha, text)) and len(set(text)) >= 6


UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9]{12,}")


def generated(text: str) -> bool:
    """Whether a text is long enough to be a key, and in no part made of words: a UUID, or sixteen signs at least.

    >>> generated("e60544fd-89b8-4bf0-bbe4-8da0c827d402"), generated("shop-db-7d9c6b5f4d-x2x9k")
    (True, False)
    """
    if len(text) < 16:
        return False
    return UUID.fullmatch(text) is not None or any(map(random_looking, _SEGMENT.findall(text[:256])))
