"""The STATS schema: 8 tables of integers, lower-case names, times in seconds since 1970, an index on every foreign key."""

from __future__ import annotations

from collections.abc import Mapping

TABLES: Mapping[str, Mapping[str, str]] = {
    "users": {
        "id": "integer",
        "reputation": "integer",
        "creationdate": "integer",
        "views": "integer",
        "upvotes": "integer",
        "downvotes": "integer",
    },
    "posts": {
        "id": "integer",
        "posttypeid": "smallint",
        "creationdate": "integer",
        "score": "integer",
        "viewcount": "integer",
        "owneruserid": "integer",
        "answercount": "integer",
        "commentcount": "integer",
        "favoritecount": "integer",
        "lasteditoruserid": "integer",
    },
    "badges": {"id": "integer", "userid": "integer", "date": "integer"},
    "comments": {"id": "integer", "postid": "integer", "score": "smallint", "creationdate": "integer", "userid": "integer"},
    "posthistory": {
        "id": "integer",
        "posthistorytypeid": "smallint",
        "postid": "integer",
        "creationdate": "integer",
        "userid": "integer",
    },
    "postlinks": {
        "id": "integer",
        "creationdate": "integer",
        "postid": "integer",
        "relatedpostid": "integer",
        "linktypeid": "smallint",
    },
    "tags": {"id": "integer", "count": "integer", "excerptpostid": "integer"},
    "votes": {
        "id": "integer",
        "postid": "integer",
        "votetypeid": "smallint",
        "creationdate": "integer",
        "userid": "integer",
        "bountyamount": "smallint",
    },
}

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
