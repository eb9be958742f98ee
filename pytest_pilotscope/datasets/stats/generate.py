"""Generating the whole database: child rows first, then the counters derived from them, then the tables."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pytest_pilotscope.errors import DatasetError

from .discussion import make_comments, make_links, make_tags
from .draws import Draws, Ints
from .editing import Edits, make_edits, make_history
from .posts import QUESTION, Posts, Reception, make_posts, receive
from .schema import TABLES
from .tables import Column, Table, column
from .users import Users, attributes, make_badges, make_users
from .votes import make_votes

GENERATOR_VERSION = 2  # raise it whenever the bytes for a seed change
SMALLEST, LARGEST = 0.005, 20.0

# Ids have gaps, as after deleted rows: the mean number of ids left out after each row, in 1/1000.
GAPS = {"badges": 155, "comments": 269, "posthistory": 276, "postlinks": 301_300, "tags": 811, "votes": 177}


def generate(scale: float, seed: int) -> dict[str, Table]:
    """
    Draw a STATS database: 8 tables by name, 1.03 M rows at scale 1, the same bits for a seed on every platform.

    `scale` is the share of users that are drawn, with everything they do: fan-outs per user and per post keep their
    distribution, so join sizes grow linearly with the scale. Raise DatasetError for a scale outside 0.005 .. 20.
    """
    if not SMALLEST <= scale <= LARGEST:
        raise DatasetError(f"scale {scale} of the STATS generator is out of range; choose one between {SMALLEST} and {LARGEST:g}")
    users = make_users(seed, scale)
    posts = make_posts(seed, scale, users)
    reception = receive(seed, scale, posts)
    edits = make_edits(seed, scale, users, posts, reception.comments)
    columns = {
        "users": {"id": column(users.ids), "creationdate": column(users.created_s)}
        | {name: column(values) for name, values in attributes(seed, users).items()},
        "posts": _post_columns(users, posts, reception, edits),
        "badges": _badge_columns(seed, scale, users),
        "comments": _comment_columns(seed, scale, users, posts, reception),
        "posthistory": _history_columns(seed, scale, users, posts, edits),
        "postlinks": _link_columns(seed, scale, posts),
        "tags": _tag_columns(seed, scale, posts),
        "votes": _vote_columns(seed, scale, users, posts, reception),
    }
    return {name: _table(seed, name, columns[name]) for name in TABLES}


def _table(seed: int, name: str, columns: Mapping[str, Column]) -> Table:
    """Bring the columns into the order of the schema; number the rows in their order if they have no ids yet."""
    columns = dict(columns)
    if "id" not in columns:
        rows = len(next(iter(columns.values())).values)
        columns["id"] = column(_numbered(Draws(seed, f"{name} ids"), rows, GAPS[name]))
    return Table(name=name, columns={key: columns[key] for key in TABLES[name]})


def _numbered(draws: Draws, rows: int, gap: int) -> Ints:
    """Return ascending ids from 1 on that leave out `gap`/1000 ids after each row on average."""
    skipped = draws.below(1000, rows) < gap if gap < 1000 else draws.below(2 * gap // 1000 + 1, rows)
    return 1 + np.arange(rows, dtype=np.int64) + np.cumsum(skipped)


def _references(ids: Ints, parents: Ints) -> Column:
    """Return a foreign key column: the ids of these parents, NULL for a negative parent."""
    return column(ids[parents], parents < 0)


def _post_columns(users: Users, posts: Posts, reception: Reception, edits: Edits) -> dict[str, Column]:
    other = posts.kind != QUESTION
    return {
        "id": column(posts.ids),
        "posttypeid": column(posts.kind),
        "creationdate": column(posts.created_s),
        "score": column(reception.ups - reception.downs),
        "viewcount": column(reception.views, other),
        "owneruserid": _references(users.ids, posts.owner),
        "answercount": column(reception.answers, other),
        "commentcount": column(reception.comments),
        "favoritecount": column(reception.favorites, ~reception.favorable),
        "lasteditoruserid": _references(users.ids, edits.editor),
    }


def _badge_columns(seed: int, scale: float, users: Users) -> dict[str, Column]:
    owners, date_s = make_badges(seed, scale, users)
    return {"userid": _references(users.ids, owners), "date": column(date_s)}


def _comment_columns(seed: int, scale: float, users: Users, posts: Posts, reception: Reception) -> dict[str, Column]:
    comments = make_comments(seed, scale, users, posts, reception.comments)
    return {
        "postid": _references(posts.ids, comments.post),
        "score": column(comments.score),
        "creationdate": column(comments.created_s),
        "userid": _references(users.ids, comments.user),
    }


def _history_columns(seed: int, scale: float, users: Users, posts: Posts, edits: Edits) -> dict[str, Column]:
    history = make_history(seed, scale, users, posts, edits)
    return {
        "posthistorytypeid": column(history.kind),
        "postid": _references(posts.ids, history.post),
        "creationdate": column(history.created_s),
        "userid": _references(users.ids, history.user),
    }


def _link_columns(seed: int, scale: float, posts: Posts) -> dict[str, Column]:
    links = make_links(seed, scale, posts)
    return {
        "creationdate": column(links.created_s),
        "postid": _references(posts.ids, links.post),
        "relatedpostid": _references(posts.ids, links.related),
        "linktypeid": column(links.kind),
    }


def _tag_columns(seed: int, scale: float, posts: Posts) -> dict[str, Column]:
    counts, excerpts = make_tags(seed, scale, posts)
    return {"count": column(counts), "excerptpostid": _references(posts.ids, excerpts)}


def _vote_columns(seed: int, scale: float, users: Users, posts: Posts, reception: Reception) -> dict[str, Column]:
    votes = make_votes(seed, scale, users, posts, reception)
    return {
        "postid": _references(posts.ids, votes.post),
        "votetypeid": column(votes.kind),
        "creationdate": column(votes.day_s),
        "userid": _references(users.ids, votes.user),
        "bountyamount": column(votes.bounty, votes.bounty < 0),
    }
