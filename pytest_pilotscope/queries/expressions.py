"""
The expressions of pgbench's `\\set`: whole numbers, decimals, `:variables`, + - * / %, and functions, the random ones among them.

Arithmetic is PostgreSQL's: division of whole numbers drops the rest. The distributions are those of pgbench (src/bin/pgbench/pgbench.c:
getExponentialRand, getGaussianRand, computeIterativeZipfian), not its numbers, because the generator is Python's.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from random import Random

Number = int | float
_Compute = Callable[[Mapping[str, Number], Random], Number]

_NAME = re.compile(r":([A-Za-z_]\w*)")
_BARE = re.compile(r"(?<![:\w])_")
"""A name that would be taken for a variable, which `_tree` gives this first character."""
_LEAST_GAUSSIAN, _LEAST_ZIPFIAN, _MOST_ZIPFIAN = 2.0, 1.001, 1000.0
_KNOWN = "numbers, :variables, + - * / %, and random, random_gaussian, random_exponential, random_zipfian, abs, int, mod, least, greatest"


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that can be computed, as its `text`, in which all functions and operators are known."""

    text: str

    def value(self, variables: Mapping[str, Number], rng: Random) -> Number:
        """Return its value. Raise ValueError or ArithmeticError if it has none."""
        return _compiled(_tree(self.text), self.text)(variables, rng)


def parse_expression(text: str, variables: Collection[str]) -> Expression:
    """Return an expression of these variables. Raise ValueError for anything else."""
    tree = _tree(text)
    _compiled(tree, text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id.startswith("_") and node.id[1:] not in variables:
            raise ValueError(f"variable {node.id[1:]!r} has no value yet; put its \\set before")
    return Expression(text.strip())


def _tree(text: str) -> ast.expr:
    if _BARE.search(text):
        raise _unreadable(text)
    try:
        return ast.parse(_NAME.sub(r" _\1", text).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _unreadable(text) from None


def _unreadable(text: str) -> ValueError:
    return ValueError(f"{text.strip()[:200]!r} cannot be read; known are {_KNOWN}")


def _compiled(node: ast.expr, text: str) -> _Compute:
    """Return the function that computes a tree. Raise ValueError for a tree with anything that is not known."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        number: Number = node.value  # type: ignore[assignment]
        return lambda variables, rng: number
    if isinstance(node, ast.Name) and node.id.startswith("_"):
        name = node.id[1:]
        return lambda variables, rng: variables[name]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        operand, sign = _compiled(node.operand, text), -1 if isinstance(node.op, ast.USub) else 1
        return lambda variables, rng: sign * operand(variables, rng)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        operator, left, right = _OPERATORS[type(node.op)], _compiled(node.left, text), _compiled(node.right, text)
        return lambda variables, rng: operator(left(variables, rng), right(variables, rng))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        function, parts = _function(node.func.id.lower(), len(node.args), text), [_compiled(part, text) for part in node.args]
        return lambda variables, rng: function(rng, *(part(variables, rng) for part in parts))
    raise _unreadable(text)


def _function(name: str, given: int, text: str) -> Callable[..., Number]:
    if name not in _FUNCTIONS:
        raise _unreadable(text)
    least, most, function = _FUNCTIONS[name]
    if not least <= given <= most:
        raise ValueError(f"{name} takes {least if least == most else f'at least {least}'} arguments, got {given}")
    return function


def _divided(one: Number, other: Number) -> Number:
    """Divide as PostgreSQL does: whole numbers towards zero."""
    if other == 0:
        raise ValueError("division by zero")
    if isinstance(one, int) and isinstance(other, int):
        return (abs(one) // abs(other)) * (1 if (one < 0) == (other < 0) else -1)
    return one / other


def _rest(one: Number, other: Number) -> Number:
    if not (isinstance(one, int) and isinstance(other, int)):
        raise ValueError("% needs whole numbers")
    return one - int(_divided(one, other)) * other


_OPERATORS: Mapping[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: lambda one, other: one + other,
    ast.Sub: lambda one, other: one - other,
    ast.Mult: lambda one, other: one * other,
    ast.Div: _divided,
    ast.Mod: _rest,
}


def _bounds(low: Number, high: Number) -> tuple[int, int]:
    if not (float(low).is_integer() and float(high).is_integer()):
        raise ValueError(f"the bounds of a random number must be whole, got {low} and {high}")
    if high < low:
        raise ValueError(f"the upper bound of a random number is below the lower one: {high} < {low}")
    return int(low), int(high)


def _random(rng: Random, low: Number, high: Number) -> int:
    return rng.randint(*_bounds(low, high))


def _exponential(rng: Random, low: Number, high: Number, parameter: Number) -> int:
    if parameter <= 0:
        raise ValueError(f"the parameter of random_exponential must be above 0, got {parameter}")
    first, last = _bounds(low, high)
    cut = math.exp(-parameter)
    share = -math.log(cut + (1 - cut) * (1 - rng.random())) / parameter
    return min(first + int((last - first + 1) * share), last)


def _gaussian(rng: Random, low: Number, high: Number, parameter: Number) -> int:
    if parameter < _LEAST_GAUSSIAN:
        raise ValueError(f"the parameter of random_gaussian must be at least {_LEAST_GAUSSIAN:g}, got {parameter}")
    first, last = _bounds(low, high)
    deviation = rng.gauss(0, 1)
    while not -parameter <= deviation < parameter:
        deviation = rng.gauss(0, 1)
    return min(first + int((last - first + 1) * (deviation + parameter) / (2 * parameter)), last)


def _zipfian(rng: Random, low: Number, high: Number, parameter: Number) -> int:
    if not _LEAST_ZIPFIAN <= parameter <= _MOST_ZIPFIAN:
        raise ValueError(f"the parameter of random_zipfian must be from {_LEAST_ZIPFIAN} to {_MOST_ZIPFIAN:g}, got {parameter}")
    first, last = _bounds(low, high)
    most = 2.0 ** (parameter - 1)
    while True:
        rank: int = math.floor((1 - rng.random()) ** (-1 / (parameter - 1)))
        weight = (1 + 1 / rank) ** (parameter - 1)
        if rng.random() * rank * (weight - 1) / (most - 1) <= weight / most and rank <= last - first + 1:
            return first - 1 + rank


_MANY = 1000
_FUNCTIONS: Mapping[str, tuple[int, int, Callable[..., Number]]] = {
    "random": (2, 2, _random),
    "random_exponential": (3, 3, _exponential),
    "random_gaussian": (3, 3, _gaussian),
    "random_zipfian": (3, 3, _zipfian),
    "abs": (1, 1, lambda _, value: abs(value)),
    "int": (1, 1, lambda _, value: int(value)),
    "mod": (2, 2, lambda _, one, other: _rest(one, other)),
    "least": (1, _MANY, lambda _, *values: min(values)),
    "greatest": (1, _MANY, lambda _, *values: max(values)),
}
"""Least and greatest number of arguments, and the function, which gets the generator first."""
