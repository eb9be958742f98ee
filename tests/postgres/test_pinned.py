"""The configuration file of servers that are ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.postgres.pinned import base_settings, configuration, quoted_list


def test_values_are_quoted() -> None:
    """Quotes and backslashes in values arrive as they are."""
    assert configuration({"work_mem": "4MB", "pilotscope.x": "it's a \\"}) == "work_mem = '4MB'\npilotscope.x = 'it''s a \\\\'\n"


@pytest.mark.parametrize("name", ["work_mem = 1\nfsync", "", "work mem", "include'"])
def test_what_is_not_a_name_is_refused(name: str) -> None:
    """A name cannot smuggle in another line."""
    with pytest.raises(ServerError, match=f"^{re.escape(f'{name!r} is not the name of a PostgreSQL setting')}$"):
        configuration({name: "1"})


def test_a_line_break_in_a_value_is_refused() -> None:
    """A value ends with its line."""
    expected = "a PostgreSQL setting cannot hold '1\\n2': it has a line break or a zero byte in it"
    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        configuration({"work_mem": "1\n2"})


def test_lists_of_paths_are_quoted() -> None:
    """Blanks, commas and quotes in paths do not end an element."""
    assert quoted_list([Path("/a b/c,d"), Path('/e"f')]) == '"/a b/c,d", "/e""f"'


def test_nothing_listens_on_tcp() -> None:
    """The base settings keep the server on its private socket."""
    assert base_settings(Path("/s"))["listen_addresses"] == ""
    assert base_settings(Path("/s"))["unix_socket_directories"] == '"/s"'
