"""Names of files made of names that people choose, which may contain anything."""

from __future__ import annotations

import re
from hashlib import sha256

LIMIT_BYTES = 80
"""The longest part of a file's name that is made of one name; a file system allows 255 for all parts."""

_PLAIN = re.compile(r"[^\w.+-]|^[.-]+")


def file_name(name: str) -> str:
    """
    Return a name that every file system takes and that no glob pattern or URI reads in another way.

    A name that has to be changed gets a digest of itself, so that two names never become one.
    """
    plain = _PLAIN.sub("_", name)
    cut = plain.encode(errors="replace")[:LIMIT_BYTES].decode(errors="ignore")
    return name if cut == name and name else f"{cut}-{sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"
