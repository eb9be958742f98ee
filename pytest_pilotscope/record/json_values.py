"""Conversion of dataclasses to JSON values and back: strict in both directions, without pickle."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Mapping
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
    known, required = _compiled(target)  # type: ignore[arg-type]  # a class can be hashed, even if its instances cannot
    changed, name = {}, ""
    try:
        for name, item in values.items():
            exact, convert = known[name]
            if type(item) not in exact:
                changed[name] = convert(item)
    except KeyError:
        raise ValueError(f"unknown field {min(values.keys() - known.keys())!r}") from None
    except _WrongError as wrong:
        raise ValueError(f"field {name + wrong.path!r} must be {wrong.wanted}, found {json.dumps(wrong.value)[:80]}") from None
    if not required <= values.keys():
        missing = [name for name in known if name in required - values.keys()]
        raise ValueError(f"field {missing[0]!r} is missing")
    return target(**({**values, **changed} if changed else values))


Converter = Callable[[Any], Any]
"""Returns a JSON value as a Python value. Raises `_WrongError` for a value of another type."""


class _WrongError(Exception):
    """A `value`, at a `path` below a field, is not what is `wanted` there."""

    def __init__(self, wanted: str, value: Any, path: str = "") -> None:
        self.wanted, self.value, self.path = wanted, value, path

    def below(self, part: str) -> _WrongError:
        """Return the same error of a value that is at `part` of another one."""
        return _WrongError(self.wanted, self.value, part + self.path)


@cache
def _compiled(target: type[DataclassInstance]) -> tuple[dict[str, tuple[frozenset[type], Converter]], frozenset[str]]:
    """Return, for each field, the types of values that stay as they are and a converter, and the names of fields without a default."""
    hints = typing.get_type_hints(target)
    required = (field.name for field in fields(target) if field.default is MISSING and field.default_factory is MISSING)
    return {field.name: (_exact(hints[field.name]), _converter(hints[field.name])) for field in fields(target)}, frozenset(required)


def _exact(hint: Any) -> frozenset[type]:
    """Return the types of JSON values that a type has as they are."""
    union = typing.get_origin(hint) in (Union, types.UnionType)
    return frozenset(typing.get_args(hint) if union else (hint,)) & {str, int, float, bool, type(None)}


def _converter(hint: Any) -> Converter:
    """Return the converter of a type."""
    origin, arguments, wanted = typing.get_origin(hint), typing.get_args(hint), _describe(hint)
    if origin in (Union, types.UnionType):
        return _of_union(arguments, wanted)
    if origin is tuple:
        return _of_list(_converter(arguments[0]), wanted)
    if origin is Mapping:
        return _of_object(_converter(arguments[1]), wanted)

    if is_dataclass(hint):
        return _of_dataclass(hint, wanted)
    allowed = arguments if origin is Literal else ()

    def convert(value: Any) -> Any:
        if type(value) is hint or value in allowed:
            return value
        if hint is float and type(value) is int:
            with suppress(OverflowError):
                return float(value)
        raise _WrongError(wanted, value)

    return convert


def _of_dataclass(target: Any, wanted: str) -> Converter:
    def convert(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _WrongError(wanted, value)
        return from_json(target, value)

    return convert


def _of_union(arguments: tuple[Any, ...], wanted: str) -> Converter:
    options = [_converter(option) for option in arguments if option is not type(None)]

    def convert(value: Any) -> Any:
        if type(value) in arguments:  # the exact type first, so that an int in `int | float` stays an int
            return value
        try:
            if len(options) == 1:
                return options[0](value)
        except _WrongError as wrong:
            if wrong.path:
                raise
        raise _WrongError(wanted, value)

    return convert


def _of_list(item: Converter, wanted: str) -> Converter:
    def convert(value: Any) -> Any:
        if not isinstance(value, list):
            raise _WrongError(wanted, value)
        converted: list[Any] = []
        try:
            converted.extend(map(item, value))
        except _WrongError as wrong:
            raise wrong.below(f"[{len(converted)}]") from None
        return tuple(converted)

    return convert


def _of_object(item: Converter, wanted: str) -> Converter:
    def convert(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _WrongError(wanted, value)
        converted, key = {}, ""
        try:
            for key, one in value.items():
                converted[key] = item(one)
        except _WrongError as wrong:
            raise wrong.below(f".{key}") from None
        return converted

    return convert


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
