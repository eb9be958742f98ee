"""
Scripts of pgbench: statements, and `\\set name expression` lines whose variables stand in the statements as `:name`.

Like pgbench in its simple protocol, a script puts the value of a variable into the text of a statement, and leaves `:name` as it is if
there is no such variable. (https://www.postgresql.org/docs/current/pgbench.html)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

from pytest_pilotscope.errors import WorkloadError, shortened
from pytest_pilotscope.queries.expressions import Expression, Number, parse_expression
from pytest_pilotscope.queries.statements import NeverEnds, split_statements

GIVEN = ("scale", "client_id")
"""Variables that every script has, as in pgbench: the scale of pgbench's tables, and the number of the client from 0."""

_META = re.compile(r"^[ \t]*\\(?P<name>\S*)[ \t]*(?P<rest>(?:[^\\\n]|\\\n|\\.)*)\n?", re.MULTILINE)
_SET = re.compile(r"([A-Za-z_]\w*)\s+(.+)", re.DOTALL)
_VARIABLE = re.compile(r"(?<!:):([A-Za-z_]\w*)")
_WORD = re.compile(r"[A-Za-z]*")
CONTROLS = frozenset(("BEGIN", "START", "END", "COMMIT", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE"))
"""The first words of statements that begin or end a transaction, or a part of one."""
_ALLOWED = CONTROLS | {"INSERT", "UPDATE", "DELETE", "MERGE", "SELECT", "WITH", "VALUES", "TRUNCATE", "LOCK", "CALL", "SET"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A line `\\set name expression`."""

    name: str
    expression: Expression
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptStatement:
    """A statement with its variables; `line` counts from 1."""

    sql: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The commands of the file `name`, which is drawn with its `weight`."""

    name: str
    weight: int
    commands: tuple[Assignment | ScriptStatement, ...]

    def rendered(self, rng: Random, variables: Mapping[str, Number]) -> ScriptRun:
        """Return the statements with values. Raise `WorkloadError` for a value that cannot be computed, such as a division by zero."""
        known = dict(variables)
        statements = []
        for command in self.commands:
            if isinstance(command, ScriptStatement):
                statements.append(_VARIABLE.sub(lambda found: _text(known, found), command.sql))
                continue
            try:
                known[command.name] = command.expression.value(known, rng)
            except (ValueError, ArithmeticError) as error:
                raise WorkloadError(f"{self.name}:{command.line}: \\set {command.name}: {error}") from None
        return ScriptRun(script=self.name, statements=tuple(statements))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptRun:
    """The statements of one run of a script, with the values of their variables."""

    script: str
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Writes:
    """The scripts of `--writes`; a client runs `per_query` of them, drawn by weight, for each query."""

    scripts: tuple[Script, ...]
    per_query: float

    def count(self, queries: int) -> int:
        """Return the number of runs of scripts beside so many queries."""
        return round(self.per_query * queries)

    def each(self, rng: Random, variables: Mapping[str, Number]) -> list[ScriptRun]:
        """Return one run of every script that can be drawn."""
        return [script.rendered(rng, variables) for script in self.scripts if script.weight]

    def draw(self, number: int, rng: Random, variables: Mapping[str, Number]) -> list[ScriptRun]:
        """Draw runs of scripts with their values; the same state of `rng` gives the same."""
        drawn = rng.choices(self.scripts, [script.weight for script in self.scripts], k=number)
        return [script.rendered(rng, variables) for script in drawn]

    @property
    def fingerprint(self) -> str:
        """A hash of what the scripts do and how often."""
        return hashlib.sha256(repr((self.per_query, [(one.weight, one.commands) for one in self.scripts])).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        return ",".join(f"{script.name}@{script.weight}" for script in self.scripts)


def parse_script(text: str, name: str, weight: int = 1) -> Script:
    """
    Read a script.

    Raise `WorkloadError`, whose message begins with `file:line`, for other meta commands than `\\set`, for an expression with a variable
    that is not set before, and for a statement that does not read or change rows.
    """
    known = set(GIVEN)
    commands: list[Assignment | ScriptStatement] = []
    for line, meta, piece in _pieces(text):
        if meta is None:
            commands += _statements(piece, name, line)
            continue
        assignment = _assignment(meta, piece, known, f"{name}:{line}", line)
        known.add(assignment.name)
        commands.append(assignment)
    if not any(isinstance(command, ScriptStatement) for command in commands):
        raise WorkloadError(f"{name}:1: the script has no statement; write at least one, such as an INSERT or an UPDATE")
    return Script(name=name, weight=weight, commands=tuple(commands))


def _pieces(text: str) -> Iterator[tuple[int, str | None, str]]:
    """Yield the lines with meta commands (their name and the rest), and the SQL between them, each with its first line."""
    start = 0
    for found in _META.finditer(text):
        yield _line(text, start), None, text[start : found.start()]
        yield _line(text, found.start()), found["name"], found["rest"].replace("\\\n", " ")
        start = found.end()
    yield _line(text, start), None, text[start:]


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _statements(text: str, name: str, first: int) -> Iterator[ScriptStatement]:
    try:
        statements = split_statements(text)
    except NeverEnds as error:
        raise WorkloadError(f"{name}:{first + error.line - 1}: {error}") from None
    for statement in statements:
        line = first + statement.line - 1
        if first_word(statement.sql) not in _ALLOWED:
            raise WorkloadError(
                f"{name}:{line}: a script reads and changes rows only; leave this statement out: {shortened(statement.sql)}"
            )
        yield ScriptStatement(sql=statement.sql, line=line)


def first_word(sql: str) -> str:
    """Return the word with which a statement begins, in capitals."""
    found = _WORD.match(sql)
    return found[0].upper() if found else ""


def _assignment(meta: str, rest: str, known: set[str], place: str, line: int) -> Assignment:
    found = _SET.fullmatch(rest.strip())
    if meta != "set":
        raise WorkloadError(f"{place}: the meta command \\{meta} is none of those that are known here: \\set name expression")
    if found is None:
        raise WorkloadError(f"{place}: expected \\set name expression, got \\set {rest.strip()}")
    try:
        expression = parse_expression(found[2], known)
    except ValueError as error:
        raise WorkloadError(f"{place}: \\set {found[1]}: {error}") from None
    return Assignment(name=found[1], expression=expression, line=line)


def _text(known: Mapping[str, Number], found: re.Match[str]) -> str:
    value = known.get(found[1])
    return found[0] if value is None else str(value) if isinstance(value, int) else f"{value:.15g}"
