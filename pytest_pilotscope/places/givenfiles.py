"""Reading the files that users name."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_given(path: Path) -> bytes:
    """Return the content of a file. Raise OSError, also for what is no file: reading a pipe that nobody fills would never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        number, reason = (errno.EISDIR, os.strerror(errno.EISDIR)) if stat.S_ISDIR(mode) else (errno.EINVAL, "it is no regular file")
        raise OSError(number, reason, str(path))
    with open(descriptor, "rb") as file:
        return file.read()


def read_lines(path: Path) -> list[str]:
    """
    Return the lines of a text in UTF-8, without a mark of its encoding and without empty lines at its end.

    A line ends with the character for it alone: JSON and SQL may hold other characters at which Python ends a line. Raise OSError or
    UnicodeDecodeError.
    """
    text = read_given(path).decode("utf-8-sig").rstrip()
    return [line.removesuffix("\r") for line in text.split("\n")] if text else []
