"""Reading the files that users name."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_given(path: Path) -> bytes:
    """Return the content of a file. Raise OSError, also for what is no file: reading a pipe that nobody fills would never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "it is no regular file", str(path))
        return file.read()
