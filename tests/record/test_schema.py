"""The published description of the record."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from pytest_pilotscope.record.record import ENTRIES
from pytest_pilotscope.record.results import RunHeader
from pytest_pilotscope.record.schema import PARTS, schema

PAGE = Path(__file__).resolve().parents[2] / "docs" / "record.md"


def test_the_page_is_what_the_command_prints() -> None:
    """`python -m pytest_pilotscope.record.schema > docs/record.md` writes it again after a change."""
    assert PAGE.read_text(encoding="utf-8") == schema()


@pytest.mark.parametrize("cls", [RunHeader, *ENTRIES.values(), *PARTS])
def test_every_field_is_explained(cls: Any) -> None:
    """A field is named in the text above its table, not in the table alone."""
    assert [field.name for field in fields(cls) if f"`{field.name}`" not in cls.__doc__] == []
