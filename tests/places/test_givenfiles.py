"""Files that users name."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from pytest_pilotscope.places.givenfiles import read_given
from pytest_pilotscope.record.record import read_record


def test_a_file_is_read_also_through_a_link(tmp_path: Path) -> None:
    """The content is that of the file."""
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "b").symlink_to("a")
    assert read_given(tmp_path / "b") == b"text"


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """Nobody writes into it, so reading it would never end."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    message = f"[Errno 22] it is no regular file: '{tmp_path / 'pipe.jsonl'}'"
    with pytest.raises(OSError, match=f"^{re.escape(message)}$"):
        read_given(tmp_path / "pipe.jsonl")
    with pytest.raises(OSError, match=f"^{re.escape(message)}$"):
        read_record(tmp_path / "pipe.jsonl")
