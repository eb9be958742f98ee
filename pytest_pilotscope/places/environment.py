"""The environment variables that programs started here get: those on a list, so that no password or token of this process is among them."""

from __future__ import annotations

import os

_PASSED_ON = (
    "HOME",
    "USER",
    "LOGNAME",
    "PATH",
    "TMPDIR",
    "TEMP",
    "TMP",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "DYLD_LIBRARY_PATH",
    "DYLD_FALLBACK_LIBRARY_PATH",
)

COMPILING = (
    "CPATH",
    "C_INCLUDE_PATH",
    "LIBRARY_PATH",
    "COMPILER_PATH",
    "GCC_EXEC_PREFIX",
    "CCACHE_DIR",
    "NIX_CFLAGS_COMPILE",
    "NIX_LDFLAGS",
    "SDKROOT",
    "DEVELOPER_DIR",
    "MACOSX_DEPLOYMENT_TARGET",
    "SOURCE_DATE_EPOCH",
)
"""More variables that a C compiler obeys; none of them is a secret."""


def clean_environment(*more: str) -> dict[str, str]:
    """
    Return the environment for a program: the listed variables, those named in `more`, and messages in English.

    PostgreSQL's programs would also obey PG* variables; none is listed.
    """
    return {name: os.environ[name] for name in (*_PASSED_ON, *more) if name in os.environ} | {"LC_ALL": "C"}
