"""The account that runs a server. PostgreSQL refuses to run as root, so root starts it under an unprivileged account."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_pilotscope.errors import MissingServer

CANDIDATES = ("postgres", "nobody")
"""Accounts that root runs servers as; the first that exists is used. `postgres` is made for this, `nobody` owns no files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The operating system account that owns server processes and their files."""

    uid: int
    gid: int
    dropped: bool
    """True if this process is root and has to change to the account."""

    @property
    def entered_mode(self) -> int:
        """The mode of our own folders that servers have to enter: root gives the account's group the right to."""
        return 0o710 if self.dropped else 0o700

    def subprocess_options(self) -> dict[str, Any]:
        """Return keyword arguments that make `subprocess` run a program as this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.dropped else {}

    def can_reach(self, folder: Path) -> bool:
        """Tell whether this account may enter `folder` and its parents, as far as they exist. Access control lists are not read."""
        absolute = Path(os.path.abspath(folder))
        return not self.dropped or all(self._may_enter(path) for path in (absolute, *absolute.parents) if path.exists())

    def _may_enter(self, folder: Path) -> bool:
        status = folder.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        return bool(status.st_mode & (stat.S_IXGRP if status.st_gid == self.gid else stat.S_IXOTH))


def server_account() -> Account:
    """Return the current account, or for root the first of `CANDIDATES`. Raise `MissingServer` if none of them exists."""
    if os.geteuid() != 0:
        return Account(uid=os.geteuid(), gid=os.getegid(), dropped=False)
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(uid=entry.pw_uid, gid=entry.pw_gid, dropped=True)
    raise MissingServer(f"PostgreSQL does not run as root and none of the accounts {', '.join(CANDIDATES)} exists; run as another user")
