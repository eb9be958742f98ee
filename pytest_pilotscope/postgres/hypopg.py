"""
Ask the planner for the cost of a query with hypothetical indexes, which nobody has built.

HypoPG (PostgreSQL licence) keeps them in the memory of one backend; they cost nothing and are gone with the session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.postgres.indexes import Index, explain_cost
from pytest_pilotscope.postgres.session import Session

NO_WHAT_IF = (
    "indexes cannot be hidden from the planner, because the pilotscope library is not loaded (docs/steering.md); index selection needs one "
    "of the two"
)
"""The end of a sentence about a server without HypoPG and without the library, for the run and the doctor."""

_MAY_INSTALL = """
    SELECT r.rolsuper OR (v.trusted OR NOT v.superuser) AND has_database_privilege(current_database(), 'CREATE')
    FROM pg_available_extensions AS e JOIN pg_available_extension_versions AS v ON (v.name, v.version) = (e.name, e.default_version)
    JOIN pg_roles AS r ON r.rolname = current_user WHERE e.name = 'hypopg'
"""
_INSTALLED = "SELECT count(*) > 0 FROM pg_extension WHERE extname = 'hypopg'"
_CREATE = """
    SELECT h.indexrelid, h.indexname, hypopg_relation_size(h.indexrelid) FROM unnest(%s::text[]) WITH ORDINALITY AS s(statement, n),
    LATERAL hypopg_create_index(s.statement) AS h ORDER BY s.n
"""


def obstacle(session: Session) -> str | None:
    """Return why HypoPG cannot be used in the session's database; None where it is installed, or this role can install it."""
    if session.scalar(_INSTALLED):
        return None
    answer = session.execute(_MAY_INSTALL)
    if not answer:
        return "HypoPG is not on this server"
    if not answer[0][0]:
        return f"HypoPG is on this server, but role {session.scalar('SELECT current_user')!r} may not create it"
    return None


def install(session: Session) -> None:
    """Create the extension HypoPG in the session's database, unless it is there."""
    session.execute("CREATE EXTENSION IF NOT EXISTS hypopg")


class HypotheticalIndexes:
    """The hypothetical indexes of one session; ServerError when HypoPG is not installed in its database."""

    def __init__(self, session: Session) -> None:
        if not session.scalar(_INSTALLED):
            raise ServerError(f"HypoPG is not installed in database {session.database!r}: run CREATE EXTENSION hypopg there")
        self._session = session
        self._oids: dict[Index, int] = {}
        self._names: dict[str, Index] = {}
        self._sizes: dict[Index, int] = {}
        session.execute("SELECT hypopg_reset()")

    def cost(
        self, sql: str, indexes: frozenset[Index], *, matters: Callable[[Index], bool] = lambda index: True
    ) -> tuple[float, frozenset[Index]]:
        """
        Return the planner's cost of `sql` with exactly `indexes` beside the real ones, and those of them in the plan.

        Others may stay if `matters` says that they make no difference to this statement: creating and dropping takes as long as planning.
        """
        self._become(indexes, matters)
        cost, names = explain_cost(self._session, sql)
        return cost, frozenset(self._names[name] for name in names if name in self._names)

    def size_bytes(self, index: Index) -> int:
        """Return HypoPG's estimate of the size of the index."""
        if index not in self._sizes:
            self._create([index])
        return self._sizes[index]

    def close(self) -> None:
        """Drop all hypothetical indexes."""
        if not self._session.closed:
            self._session.execute("SELECT hypopg_reset()")

    def _become(self, indexes: frozenset[Index], matters: Callable[[Index], bool]) -> None:
        surplus = {index for index in self._oids if index not in indexes and matters(index)}
        if surplus:
            self._session.execute(
                "SELECT hypopg_drop_index(o) FROM unnest(%s::oid[]) AS o", ([self._oids.pop(index) for index in surplus],)
            )
            self._names = {name: index for name, index in self._names.items() if index not in surplus}
        missing = sorted(indexes - self._oids.keys())
        if missing:
            self._create(missing)

    def _create(self, indexes: Iterable[Index]) -> None:
        wanted = list(indexes)
        rows = self._session.execute(_CREATE, ([index.statement for index in wanted],))
        for index, (oid, name, size_bytes) in zip(wanted, rows, strict=True):
            self._oids[index], self._names[name], self._sizes[index] = oid, index, size_bytes
