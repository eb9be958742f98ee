"""
Connection strings of PostgreSQL.

libpq takes a DSN as `postgresql://user:password@host/database?option=value` or as `host=... password=...`. This file does not import
psycopg2, so that the plugin can redact a command line quickly.
"""

from __future__ import annotations

import re
from shlex import quote
from urllib.parse import quote as percent_encoded
from urllib.parse import unquote, urlsplit

from pytest_pilotscope.places.secret import Address

_URL = re.compile(r"^postgres(?:ql)?://", re.IGNORECASE)


class Dsn(Address):
    """A connection string that shows without its password; only the driver calls `reveal()`."""

    __slots__ = ()

    @property
    def database(self) -> str | None:
        """The database in the DSN; None if it names none and libpq chooses."""
        if _URL.match(self._text):
            try:
                return unquote(urlsplit(self._text).path.lstrip("/")) or None
            except ValueError:  # libpq will say what is wrong with it
                return None
        named = re.search(r"(?<!\w)dbname\s*=\s*(?:'((?:\\.|[^'\\])*)'|(\S+))", self._text)
        return (named[1] or named[2]) if named else None

    def with_search_path(self, path: str) -> str:
        """Return the `--server` of a command line whose sessions look into the schemas `path`; words if the string has options already."""
        option = re.sub(r"([ \\])", r"\\\1", f"-csearch_path={path}")  # libpq splits options at blanks
        if re.search(r"(?<!\w)options\s*=", self._text):
            return f"--server with {quote(option)} among its options"
        if _URL.match(self._text):
            address = f"{self}{'&' if '?' in self._text else '?'}options={percent_encoded(option, safe='')}"
        else:
            value = re.sub(r"(['\\])", r"\\\1", option)
            address = f"{self} options='{value}'"
        return f"--server {quote(address)}"

    @property
    def ambiguous(self) -> bool:
        """True if the password of a URL has an unescaped `@` or `/`, which libpq reads as the end of the password or of the host."""
        return self.has_unescaped("@/")


def is_dsn(text: str) -> bool:
    """Tell whether `text` is a connection string, and not the name of a provider or a database."""
    return bool(_URL.match(text)) or "=" in text
