"""
Read the rows of a statement while they arrive, as the text that PostgreSQL sends.

psycopg2 waits for the whole answer and keeps it. A cursor of the server would be planned in another way (no parallel plans, the first rows
first). libpq itself hands rows over in pieces of the same answer to the same message, so the server plans, executes and sends as ever.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import psycopg2.extensions
from psycopg2 import _psycopg

PIECE_ROWS = 1_000
_OK = frozenset([0, 1, 2])  # PGRES_EMPTY_QUERY, PGRES_COMMAND_OK, PGRES_TUPLES_OK
_COPYING = frozenset([3, 4, 8])  # PGRES_COPY_OUT, PGRES_COPY_IN, PGRES_COPY_BOTH
_ROWS = frozenset([2, 9, 12])  # PGRES_TUPLES_OK, PGRES_SINGLE_TUPLE, PGRES_TUPLES_CHUNK
_SQLSTATE, _PRIMARY, _DETAIL = map(ord, "CMD")

TextRow = tuple[bytes | None, ...]
Take = Callable[[Sequence[int], Iterator[TextRow]], None]
"""Takes the type OIDs of the columns and some of the rows: text in the client's encoding, None for NULL."""


class StatementError(Exception):
    """The error that the server sent: `sqlstate` (empty if the connection is lost), and PostgreSQL's message and detail."""

    def __init__(self, message: str, *, sqlstate: str, detail: str | None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.detail = detail


def stream(connection: psycopg2.extensions.connection, sql: str, take: Take | None) -> int:
    """
    Run `sql`, hand its rows to `take` while they arrive, and return their number. Without `take` rows are counted and dropped at once.

    At most `PIECE_ROWS` rows are held. Raise `StatementError`.
    """
    pq, handle = _libpq(), int(connection.pgconn_ptr or 0)
    if not pq.PQsendQuery(handle, sql.encode()):
        raise StatementError(_text(pq.PQerrorMessage(handle)), sqlstate="", detail=None)
    if hasattr(pq, "PQsetChunkedRowsMode"):
        pq.PQsetChunkedRowsMode(handle, PIECE_ROWS)
    else:
        pq.PQsetSingleRowMode(handle)
    count, error = 0, None
    try:
        while result := pq.PQgetResult(handle):
            try:
                count += pq.PQntuples(result)
                error = error or _error(pq, handle, result)
                if take is not None and pq.PQresultStatus(result) in _ROWS and pq.PQntuples(result):
                    take([pq.PQftype(result, column) for column in range(pq.PQnfields(result))], _rows(pq, result))
            finally:
                pq.PQclear(result)
    except BaseException:
        connection.cancel()
        while result := pq.PQgetResult(handle):
            pq.PQclear(result)
        raise
    if error is not None:
        raise error
    return count


def _rows(pq: ctypes.CDLL, result: int) -> Iterator[TextRow]:
    value, is_null, columns = pq.PQgetvalue, pq.PQgetisnull, range(pq.PQnfields(result))
    for row in range(pq.PQntuples(result)):
        yield tuple(value(result, row, column) or (None if is_null(result, row, column) else b"") for column in columns)


def _error(pq: ctypes.CDLL, handle: int, result: int) -> StatementError | None:
    """Return the error in a result, if it has one. End a COPY, which is no query, so that the session stays usable."""
    status = pq.PQresultStatus(result)
    if status in _COPYING:
        pq.PQendcopy(handle)
        return StatementError("COPY is no query", sqlstate="0A000", detail=None)
    if status in _OK | _ROWS:
        return None
    sqlstate, message, detail = (pq.PQresultErrorField(result, field) for field in (_SQLSTATE, _PRIMARY, _DETAIL))
    return StatementError(
        _text(message or pq.PQresultErrorMessage(result)), sqlstate=_text(sqlstate or b""), detail=_text(detail) if detail else None
    )


def _text(message: bytes) -> str:
    return message.decode(errors="replace").strip()


@cache
def _libpq() -> ctypes.CDLL:
    """Return the libpq that the driver itself is linked with."""
    pq = ctypes.CDLL(_psycopg.__file__)
    handle, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures: dict[str, tuple[Any, ...]] = {  # the result, then the arguments
        "PQsendQuery": (number, handle, text),
        "PQsetSingleRowMode": (number, handle),
        "PQgetResult": (handle, handle),
        "PQclear": (None, handle),
        "PQendcopy": (number, handle),
        "PQresultStatus": (number, handle),
        "PQntuples": (number, handle),
        "PQnfields": (number, handle),
        "PQftype": (ctypes.c_uint, handle, number),
        "PQgetvalue": (text, handle, number, number),
        "PQgetisnull": (number, handle, number, number),
        "PQresultErrorField": (text, handle, number),
        "PQresultErrorMessage": (text, handle),
        "PQerrorMessage": (text, handle),
    }
    if hasattr(pq, "PQsetChunkedRowsMode"):  # since libpq 17
        signatures["PQsetChunkedRowsMode"] = (number, handle, number)
    for name, (result, *arguments) in signatures.items():
        function = getattr(pq, name)
        function.restype, function.argtypes = result, arguments
    return pq
