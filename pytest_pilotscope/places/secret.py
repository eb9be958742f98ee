"""
Texts that hide their secrets: passwords, and addresses with a password or a token in them.

The classes are no `str`, so that nothing is shown by mistake: neither in a message nor among the local variables of a traceback.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import chain
from urllib.parse import unquote

HIDDEN = "***"
"""The text shown instead of a secret."""

_NAMES = r"[\w.-]*(?:token|passw|passphrase|pwd|secret|credential|api_?key|access_?key|signature|scram_\w+_key)[\w.-]*"
# People forget to escape "@", "/" and "?" in a password: take everything up to the last "@" of the word.
_URL_PASSWORD = re.compile(r"(?P<start>\b[a-z][\w+.-]*:/+[^\s:@/?]*|\bpostgres(?:ql)?:[^\s:@/?]*):(?P<secret>\S*)@", re.IGNORECASE)
_URL_TOKEN = re.compile(r"(?P<start>\b(?:https?|databricks)://)(?![^\s:@/?]*:)(?P<secret>\S+)@", re.IGNORECASE)
_URL_OPTION = re.compile(rf"(?P<start>[?&;]{_NAMES}=)(?P<secret>[^&\s]*?)(?=['\")\],;.]*(?:[&\s]|$))", re.IGNORECASE)
_KEYWORD = re.compile(
    r"(?P<start>(?<![\w?&])(?:password|sslpassword|oauth_client_secret|scram_client_key|scram_server_key)\s*=\s*)"
    r"(?P<secret>'(?:\\.|[^'\\])*(?:'|$)|(?:\\.|[^\s\\])*)",
    re.IGNORECASE,
)
_URL = re.compile(r"\s*[a-z][\w+.-]*:/", re.IGNORECASE)
_FROM_WORD = dict(zip(range(0xE000, 0xE004), " \t\r\n", strict=True))  # characters for private use
_TO_WORD = {ord(blank): chr(number) for number, blank in _FROM_WORD.items()}
_SHORTEST = 4  # of the values of environment variables that are taken for secrets


class Secret:
    """A text that shows as ***. Only who hands it to another program calls `reveal()`."""

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


class Address(Secret):
    """A connection string, or the URI of a store, that shows without the passwords and tokens in it."""

    __slots__ = ()

    def __str__(self) -> str:
        return redact(self._word).translate(_FROM_WORD)

    @property
    def _word(self) -> str:
        """The text, with other characters for the blanks of a URL: somebody may have forgotten to escape those, too."""
        return self._text.translate(_TO_WORD) if _URL.match(self._text) else self._text

    def _in_url(self) -> Iterator[re.Match[str]]:
        return chain(_URL_PASSWORD.finditer(self._word), _URL_TOKEN.finditer(self._word))

    def secrets(self) -> frozenset[str]:
        """Return every non-empty spelling in which a message could show a secret of this address."""
        matches = chain(self._in_url(), _URL_OPTION.finditer(self._word), _KEYWORD.finditer(self._word))
        found = {match["secret"].translate(_FROM_WORD) for match in matches}
        unescaped = {re.sub(r"\\(.)", r"\1", secret.strip("'")) for secret in found}
        return frozenset(spelling for secret in found | unescaped for spelling in (secret, unquote(secret)) if spelling)

    def has_unescaped(self, characters: str) -> bool:
        """Tell whether one of these is before the last `@` of a URL, in its password or token: others would read another host."""
        return any(set(characters) & set(match["secret"].translate(_FROM_WORD)) for match in self._in_url())

    def scrub(self, message: str) -> str:
        """Remove every spelling of this address's secrets from a message."""
        for secret in sorted(self.secrets(), key=len, reverse=True):
            message = message.replace(secret, HIDDEN)
        return redact(message)


class StoreUri(Address):
    """The address of an MLflow store."""

    __slots__ = ()


def redact(text: str) -> str:
    """Replace the passwords and tokens of all addresses in a text (a DSN, a command line, a log) by ***."""
    text = _URL_PASSWORD.sub(lambda match: f"{match['start']}:{HIDDEN}@" if match["secret"] else match[0], text)
    text = _URL_TOKEN.sub(lambda match: f"{match['start']}{HIDDEN}@", text)
    for pattern in (_URL_OPTION, _KEYWORD):
        text = pattern.sub(lambda match: match["start"] + HIDDEN, text)
    return text


def redact_variables(text: str) -> str:
    """Replace the values of environment variables that are called a password, a token or the like by ***."""
    secrets = {value.strip() for name, value in os.environ.items() if re.fullmatch(_NAMES, name, re.IGNORECASE)}
    for secret in sorted((one for one in secrets if len(one) >= _SHORTEST), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text
