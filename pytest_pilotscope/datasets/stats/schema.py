"""The STATS schema: 8 tables of integers, lower-case names, times in seconds since 1970, an index on every foreign key."""

from __future__ import annotations

from collections.abc import Mapping


def _columns(text: str) -> Mapping[str, str]:
    """Read `name` or `name:type`, separated by blanks; a name alone is an integer."""
    return {name: kind or "integer" for name, _, kind in (word.partition(":") for word in text.split())}


TABLES: Mapping[str, Mapping[str, str]] = {
    "users": _columns("id reputation creationdate views upvotes downvotes"),
    "posts": _columns(
        "id posttypeid:smallint creationdate score viewcount owneruserid answercount commentcount favoritecount lasteditoruserid"
    ),
    "badges": _columns("id userid date"),
    "comments": _columns("id postid score:smallint creationdate userid"),
    "posthistory": _columns("id posthistorytypeid:smallint postid creationdate userid"),
    "postlinks": _columns("id creationdate postid relatedpostid linktypeid:smallint"),
    "tags": _columns("id count excerptpostid"),
    "votes": _columns("id postid votetypeid:smallint creationdate userid bountyamount:smallint"),
}
"""Table -> column -> type."""

DATES: Mapping[str, str] = {table: "date" if table == "badges" else "creationdate" for table in TABLES if table != "tags"}
"""Table -> the column that says when a row came."""

# (table, column) -> the table whose id it refers to. As in the published database there are indexes and no constraints.
FOREIGN_KEYS: Mapping[tuple[str, str], str] = {
    ("badges", "userid"): "users",
    ("comments", "postid"): "posts",
    ("comments", "userid"): "users",
    ("posthistory", "postid"): "posts",
    ("posthistory", "userid"): "users",
    ("postlinks", "postid"): "posts",
    ("postlinks", "relatedpostid"): "posts",
    ("posts", "lasteditoruserid"): "users",
    ("posts", "owneruserid"): "users",
    ("tags", "excerptpostid"): "posts",
    ("votes", "postid"): "posts",
    ("votes", "userid"): "users",
}


def definition(table: str) -> str:
    """Return the columns of a table for CREATE TABLE, without keys: those are cheaper to add after loading."""
    return ", ".join(f"{name} {kind}{' NOT NULL' if name == 'id' else ''}" for name, kind in TABLES[table].items())


def create_indexes(table: str) -> list[str]:
    """Return the statements that add the primary key and an index for every foreign key of the table."""
    statements = [f"ALTER TABLE {table} ADD CONSTRAINT {table}_pkey PRIMARY KEY (id)"]
    for owner, column in FOREIGN_KEYS:
        if owner == table:
            statements.append(f"CREATE INDEX idx_{table}_{column} ON {table} USING btree ({column})")
    return statements
