"""Secrets in lines of a shell that no name tells: `curl -u name:password`, `mysql -psecret`, `docker login -p secret`.

What an option means depends on the command, so a command is looked for first, and then its options within its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_LINE: Final = 2000
"""Characters behind a command that are looked at."""

_VALUE: Final = r"([^\s\"'`|;&]{2,512}+)"


def _option(names: str, before: str = "") -> re.Pattern[str]:
    """The value of an option; in a group."""
    return re.compile(rf"(?<=\s)(?:{names})[ =]{{1,3}}+[\"']?{before}(?![$%{{<\"'-]){_VALUE}")


_USER: Final = _option("-u|-U|--user|--proxy-user|-a|--auth", r"(?!\[redacted:)[^\s:\"'$]{0,128}+:(?!//)")
_COMMANDS: Final = {
    "curl": _USER,
    "http ": _USER,
    "https ": _USER,
    "mysql": re.compile(rf"(?<=\s)-p(?![$\"'%{{-]){_VALUE}"),
    "mariadb": re.compile(rf"(?<=\s)-p(?![$\"'%{{-]){_VALUE}"),
    "sshpass": re.compile(rf"(?<=\s)-p ?[\"']?(?![$\"'%{{-]){_VALUE}"),
    "redis-cli": _option("-a"),
    "openssl": _option("-k|-passin|-passout|-pass", "(?:pass:)?"),
    "smbclient": _option("-U|--user", r"[^\s%\"'$]{1,128}+%"),
    " login": _option("-p"),
    "twine": _option("-p"),
    "htpasswd": re.compile(rf"(?<=\s)-[A-Za-z]{{0,4}}b[A-Za-z]{{0,4}} [^\s]{{1,256}}+ [^\s]{{1,128}}+ {_VALUE}"),
    "echo": re.compile(rf"\becho [\"']?(?![$\"'%{{-]){_VALUE}[\"']? ?\| ?\w{{1,20}} [^|\n]{{0,200}}--password-stdin"),
}


def options(text: str) -> Iterator[tuple[int, int]]:
    """Where the values of such options begin and end."""
    for command, pattern in _COMMANDS.items():
        place = text.find(command)
        while place >= 0:
            end = text.find("\n", place, place + _LINE)
            if end < 0:
                end = min(len(text), place + _LINE)
            for found in pattern.finditer(text, place, end):
                if not found[1].replace(":", "").isdigit():  # ids, as in docker's
                    yield found.span(1)
            place = text.find(command, end)
