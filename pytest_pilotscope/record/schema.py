"""The description of the record for authors of other programs: `python -m pytest_pilotscope.record.schema > docs/record.md`."""

from __future__ import annotations

import inspect
import json
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Literal, Union

from pytest_pilotscope.record.json_values import to_json
from pytest_pilotscope.record.record import ENTRIES, FORMAT
from pytest_pilotscope.record.results import BuiltIndex, ChangedSetting, PlanNode, RunHeader, SubplanEstimate

PARTS = (PlanNode, SubplanEstimate, BuiltIndex, ChangedSetting)
"""The objects within lines."""

_INTRODUCTION = f"""\
<!-- Made by `python -m pytest_pilotscope.record.schema > docs/record.md`; a test checks that it is current. -->

# The record

Every run writes a file `results/<run name>.jsonl`. All tables, pages, MLflow runs and gates read it, and so can your programs.
Each line is a JSON object. Its `kind` names one of the objects below, which describe the other fields.
The lines are in the order of writing.

```bash
jq -r 'select(.kind == "query_run") | [.query_id, .side, .repetition, .execution_ms] | @tsv' results/mscn_stats_tiny_20260102_030405.jsonl
```

## What a reader must do

This is format {FORMAT}. The format changes whenever a field is added, renamed or removed.

- Read the `format` in the header, the first line, and reject a format that you do not know.
- Skip a line whose `kind` you do not know, and say how many you skipped: later versions add kinds without changing the format.
- Use the default for a missing field: the nodes of plans leave out fields at their defaults. Reject a field that you do not know.
- Leave out a last line that is cut off, and say so: the process died while it wrote. If a record has no `end`, its run was killed or still
  goes on; the record can be read all the same.
- Read `1e999` as infinity. There is no NaN.

| format | versions | difference from the format before |
|---|---|---|
| 3 | 0.3.0 | header: `variants`, `other_servers`, `conditions`, `shared_baseline`; `query_run`: `client`; kinds `time_slice`, `write_run` |
| 2 | 0.2.0 | `plan` is a tree of [PlanNode](#plannode) |
| 1 | 0.1.0 | `plan` is a text with a line for each node, indented by two spaces for each level; this version still reads it |
"""


def schema() -> str:
    """Return the description as Markdown: each kind of line, then the objects within lines."""
    kinds = {"header": RunHeader, **ENTRIES}
    sections = [_section(f"Lines of the kind `{kind}`", cls) for kind, cls in kinds.items()]
    return "\n".join([_INTRODUCTION, *sections, *(_section(cls.__name__, cls) for cls in PARTS)])


def _section(title: str, cls: type) -> str:
    return "\n".join([f"## {title}", "", inspect.getdoc(cls) or "", "", "| field | value | default |", "|---|---|---|", *_rows(cls), ""])


def _rows(cls: Any) -> Iterator[str]:
    hints = typing.get_type_hints(cls)
    if cls is RunHeader:
        yield f"| `format` | {FORMAT} |  |"
    for field in fields(cls):
        yield f"| `{field.name}` | {_words(hints[field.name])} | {_default(field)} |"


def _default(field: Field[Any]) -> str:
    """Return the default as JSON, or nothing for a required field."""
    if field.default_factory is not MISSING:
        return f"`{json.dumps(field.default_factory())}`"
    return "" if field.default is MISSING else f"`{json.dumps(to_json(field.default, field.name))}`"


def _words(hint: Any) -> str:
    """Describe the JSON values of a type in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        *most, last = map(_words, arguments)
        return f"{', '.join(most)} or {last}"
    if origin is Literal:
        return " or ".join(f"`{json.dumps(argument)}`" for argument in arguments)
    if origin is tuple:
        return f"list of {_words(arguments[0])}"
    if origin is Mapping:
        return f"object of {_words(arguments[1])}"
    if isinstance(hint, type) and is_dataclass(hint):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    return {str: "text", int: "integer", float: "number", bool: "boolean", type(None): "null"}[hint]


if __name__ == "__main__":
    sys.stdout.write(schema())
