"""
Connection strings that hide their passwords.

libpq takes a DSN as `postgresql://user:password@host/database?option=value` or as `host=... password=...`. This file does not import
psycopg2, so that the plugin can redact a command line quickly.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

HIDDEN = "***"
"""The text shown instead of a password."""

_HIDDEN_KEYS = r"(?:password|sslpassword|oauth_client_secret|scram_client_key|scram_server_key)"
# People forget to escape "@" and "/" in a password: take everything up to the last "@" of the word.
_URL_PASSWORD = re.compile(r"(?P<start>\bpostgres(?:ql)?:/*[^\s:@/?]*):(?P<secret>[^\s]*)@", re.IGNORECASE)
_URL_OPTION = re.compile(rf"(?P<start>[?&]{_HIDDEN_KEYS}=)(?P<secret>[^&\s]*)", re.IGNORECASE)
_KEYWORD = re.compile(rf"(?P<start>(?<![\w?&]){_HIDDEN_KEYS}\s*=\s*)(?P<secret>'(?:\\.|[^'\\])*(?:'|$)|(?:\\.|[^\s\\])*)", re.IGNORECASE)
_URL = re.compile(r"^postgres(?:ql)?://", re.IGNORECASE)


class Secret:
    """A text that shows as ***: a password, or a token. Only who hands it to another program calls `reveal()`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and type(other) is type(self) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> str:
        return HIDDEN

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class Dsn(Secret):
    """A connection string that shows without its password."""

    __slots__ = ()

    @property
    def database(self) -> str | None:
        """The database in the DSN; None if it names none and libpq chooses."""
        if _URL.match(self._text):
            return unquote(urlsplit(self._text).path.lstrip("/")) or None
        named = re.search(r"(?<!\w)dbname\s*=\s*(?:'((?:\\.|[^'\\])*)'|(\S+))", self._text)
        return (named[1] or named[2]) if named else None

    def secrets(self) -> frozenset[str]:
        """Return every non-empty spelling in which a message could show a password of this DSN."""
        found = {match["secret"] for pattern in (_URL_PASSWORD, _URL_OPTION, _KEYWORD) for match in pattern.finditer(self._text)}
        unescaped = {re.sub(r"\\(.)", r"\1", secret.strip("'")) for secret in found}
        return frozenset(spelling for secret in found | unescaped for spelling in (secret, unquote(secret)) if spelling)

    @property
    def ambiguous(self) -> bool:
        """True if the password of a URL has an unescaped `@` or `/`, which libpq reads as the end of the password or of the host."""
        return any(set("@/") & set(match["secret"]) for match in _URL_PASSWORD.finditer(self._text))

    def scrub(self, message: str) -> str:
        """Remove every spelling of this DSN's passwords from a message."""
        for secret in sorted(self.secrets(), key=len, reverse=True):
            message = message.replace(secret, HIDDEN)
        return redact(message)

    def __str__(self) -> str:
        return redact(self._text)


def is_dsn(text: str) -> bool:
    """Tell whether `text` is a connection string, and not the name of a provider or a database."""
    return bool(_URL.match(text)) or "=" in text


def redact(text: str) -> str:
    """Replace the passwords of all connection strings in a text (a DSN, a command line, a log) by ***."""
    text = _URL_PASSWORD.sub(lambda match: f"{match['start']}:{HIDDEN}@" if match["secret"] else match[0], text)
    text = _URL_OPTION.sub(lambda match: match["start"] + HIDDEN, text)
    return _KEYWORD.sub(lambda match: match["start"] + HIDDEN, text)
