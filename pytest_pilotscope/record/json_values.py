"""Conversion of dataclasses to JSON values and back: strict in both directions, without pickle."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from math import isinf, isnan
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")

_INFINITY = "\0inf"  # replaces infinity until the text exists; other texts with a NUL are rejected, and PostgreSQL's never have one


def to_line(kind: str, value: DataclassInstance, **extra: int) -> str:
    """
    Return the JSON text (one line, without its end) of a dataclass, after its `kind` and `extra`.

    The line has every field. An object within it leaves out the fields at their defaults, because a plan has many nodes.
    Infinity is written as `1e999`, which is valid JSON and reads back as infinity. Raise ValueError, with the path to the value, for a NaN
    and for a NUL in a text.
    """
    values = {f.name: to_json(getattr(value, f.name), f"{kind}.{f.name}") for f in fields(value)}
    text = json.dumps({"kind": kind, **extra, **values}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace('"-\\u0000inf"', "-1e999").replace('"\\u0000inf"', "1e999")


def to_json(value: Any, path: str) -> Any:
    """
    Turn dataclasses, mappings, sequences and numbers (also NumPy's) into JSON values; error messages name the `path`.

    Leave out the fields of a dataclass that are at their defaults.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, path)
    if is_dataclass(value):
        present = {f.name: item for f in fields(value) if (item := getattr(value, f.name)) != f.default}
        return {name: to_json(item, f"{path}.{name}") for name, item in present.items()}
    if isinstance(value, Mapping):
        return {_text(key, path): to_json(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item, f"{path}[{i}]") for i, item in enumerate(value)]
    return _number(value, path)


def _text(value: str, path: str) -> str:
    if "\0" in value:
        raise ValueError(f"{path} holds a NUL character, found {value!r}")
    return value


def _number(value: Any, path: str) -> int | float | str:
    if not isinstance(value, Real):
        raise TypeError(f"{path} must be text, a number, true, false or null, found {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{path} is too large for a number of 64 bits; leave the value out or fail the run") from None
    if isinstance(value, Integral):
        return int(value)
    if isnan(number):
        raise ValueError(f"{path} is NaN; a record holds no NaN, leave the value out or fail the run")
    if isinf(number):
        return _INFINITY if number > 0 else f"-{_INFINITY}"
    return number


def from_json(target: type[T], values: Mapping[str, Any]) -> T:
    """
    Build a dataclass from JSON values.

    Raise ValueError, with the name of the field, for unknown fields, missing fields and values of another type.
    """
    hints = _hints(target)  # type: ignore[arg-type]  # a class can be hashed, even if its instances cannot
    unknown = sorted(values.keys() - hints.keys())
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}")
    for field in fields(target):  # type: ignore[arg-type]  # callers pass dataclasses
        if field.default is MISSING and field.default_factory is MISSING and field.name not in values:
            raise ValueError(f"field {field.name!r} is missing")
    return target(**{name: _convert(hints[name], item, name) for name, item in values.items()})


@cache
def _hints(target: type) -> dict[str, Any]:
    return typing.get_type_hints(target)


def _convert(hint: Any, value: Any, name: str, *, wanted: str = "") -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    wanted = wanted or _describe(hint)
    if origin in (Union, types.UnionType):
        if type(value) in arguments:  # the exact type first, so that an int in `int | float` stays an int
            return value
        options = [option for option in arguments if option is not type(None)]
        if len(options) == 1:
            return _convert(options[0], value, name, wanted=wanted)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(arguments[0], item, f"{name}[{i}]") for i, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {key: _convert(arguments[1], item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(hint, type) and is_dataclass(hint) and isinstance(value, dict):
        return from_json(hint, value)
    if hint is float and type(value) is int:
        with suppress(OverflowError):
            return float(value)
    if type(value) is hint:
        return value
    raise ValueError(f"field {name!r} must be {wanted}, found {json.dumps(value)[:80]}")


def _describe(hint: Any) -> str:
    words = {str: "text", int: "an integer", float: "a number", bool: "true or false", type(None): "null"}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        return "a list"
    if origin is Mapping or is_dataclass(hint):
        return "an object"
    if origin in (Union, types.UnionType):
        return " or ".join(map(_describe, arguments))
    return words[hint]
