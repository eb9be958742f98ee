"""The generated STATS data: the same bits for a seed, the rules of the real data, and its shape."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest
from numpy.typing import NDArray

from pytest_pilotscope.datasets.stats import Table, generate
from pytest_pilotscope.datasets.stats.schema import FOREIGN_KEYS, TABLES
from pytest_pilotscope.errors import DatasetError

Tables = dict[str, Table]
DAY = 86_400


@pytest.fixture(scope="module")
def tables() -> Tables:
    """Generate the whole database at scale 1; 1.03 M rows."""
    return generate(1.0, 0)


def present(tables: Tables, table: str, column: str) -> NDArray[np.bool_]:
    """Return a mask of the rows in which the column has a value."""
    return tables[table][column].present()


def values(tables: Tables, table: str, column: str) -> NDArray[np.int32]:
    """Return the values of a column, with zeros in place of NULL."""
    return tables[table][column].values


def parents_of(tables: Tables, table: str, column: str) -> NDArray[np.intp]:
    """Return the row number of the parent of every non-NULL foreign key."""
    ids = values(tables, FOREIGN_KEYS[table, column], "id")
    return np.searchsorted(ids, values(tables, table, column)[present(tables, table, column)])


def fanout(tables: Tables, table: str, column: str) -> NDArray[np.intp]:
    """Return the number of children of every parent."""
    return np.bincount(parents_of(tables, table, column), minlength=tables[FOREIGN_KEYS[table, column]].rows)


def digest(table: Table) -> str:
    """Return SHA-256 over names, little-endian values and NULL masks of all columns, its first 16 hex digits."""
    sha = hashlib.sha256()
    for name, column in table.columns.items():
        sha.update(name.encode() + b"\0" + column.values.astype("<i4").tobytes())
        sha.update(b"" if column.nulls is None else np.packbits(column.nulls).tobytes())
    return sha.hexdigest()[:16]


PINNED: dict[tuple[float, int], dict[str, str]] = {
    (0.02, 0): {
        "users": "f0518bdeb6d1a624",
        "posts": "b589aa883f9c4b41",
        "badges": "88cacf8723f04d41",
        "comments": "65bf4491c1c5ceb0",
        "posthistory": "ec5e67a5749ae542",
        "postlinks": "f913197aec69d870",
        "tags": "63b8ce904616e528",
        "votes": "72fc8b412a4ce61b",
    },
    (0.1, 0): {
        "users": "4c9a995daa67a2be",
        "posts": "d140bb61b00b3c0d",
        "badges": "a25f8db2546a4324",
        "comments": "19667abba0de8eee",
        "posthistory": "89f671f75eab50f6",
        "postlinks": "3e2e0cdce65dc81f",
        "tags": "71bc2ad5a2868b39",
        "votes": "6d9569f5a9a1ac99",
    },
    (0.02, 7): {
        "users": "e356aabc13a1c18f",
        "posts": "23cc1074b314272c",
        "badges": "01030776cb74b8b1",
        "comments": "bf46776cb7005a76",
        "posthistory": "463f1c68c97b2c40",
        "postlinks": "941409899db039ea",
        "tags": "05b3a2348f48c82b",
        "votes": "b8e8ff7cb13fd6b7",
    },
}


@pytest.mark.parametrize(("scale", "seed"), PINNED)
def test_tables_are_the_same_bits_everywhere(scale: float, seed: int) -> None:
    """
    For a scale and a seed every byte of every table is pinned.

    If this fails after an intended change of the generator, raise GENERATOR_VERSION and pin the new digests.
    """
    assert {name: digest(table) for name, table in generate(scale, seed).items()} == PINNED[scale, seed]


def test_seeds_differ() -> None:
    """Another seed is another database of the same size."""
    first, second = generate(0.02, 0), generate(0.02, 1)
    assert {name: table.rows for name, table in first.items()} == {name: table.rows for name, table in second.items()}
    assert all(digest(first[name]) != digest(second[name]) for name in TABLES)


@pytest.mark.parametrize("scale", [0.0049, 20.1, float("nan"), -1.0])
def test_scale_out_of_range(scale: float) -> None:
    """Scales that make no sensible database are refused."""
    message = f"scale {scale} of the STATS generator is out of range; choose one between 0.005 and 20"
    with pytest.raises(DatasetError, match=f"^{re.escape(message)}$"):
        generate(scale, 0)


def test_rows_of_every_table(tables: Tables) -> None:
    """At scale 1 every table has exactly the rows of the real one."""
    assert {name: table.rows for name, table in tables.items()} == {
        "users": 40_325,
        "posts": 91_976,
        "badges": 79_851,
        "comments": 174_305,
        "posthistory": 303_187,
        "postlinks": 11_102,
        "tags": 1_032,
        "votes": 328_064,
    }


@pytest.mark.parametrize(("table", "column"), FOREIGN_KEYS)
def test_foreign_keys_have_parents(tables: Tables, table: str, column: str) -> None:
    """Every non-NULL foreign key is the id of a parent."""
    ids = values(tables, FOREIGN_KEYS[table, column], "id")
    found = np.isin(values(tables, table, column)[present(tables, table, column)], ids)
    assert found.all()


@pytest.mark.parametrize("table", TABLES)
def test_ids_are_unique_and_ascending(tables: Tables, table: str) -> None:
    """Ids ascend from row to row, and so does time: the order of ids is the order of time."""
    assert (np.diff(values(tables, table, "id")) > 0).all()
    for column in ("creationdate", "date"):
        if column in TABLES[table]:
            assert (np.diff(values(tables, table, column)) >= 0).all()


def test_score_is_up_minus_down_votes(tables: Tables) -> None:
    """posts.score counts votes of type 2 less votes of type 3, on every post."""
    kind, post = values(tables, "votes", "votetypeid"), parents_of(tables, "votes", "postid")
    ups, downs = (np.bincount(post[kind == one], minlength=tables["posts"].rows) for one in (2, 3))
    assert (values(tables, "posts", "score") == ups - downs).all()


def test_counters_count_children(tables: Tables) -> None:
    """favoritecount counts votes of type 5 (NULL read as 0), commentcount comments, and answercount adds up to the answers."""
    kind, post = values(tables, "votes", "votetypeid"), parents_of(tables, "votes", "postid")
    assert (values(tables, "posts", "favoritecount") == np.bincount(post[kind == 5], minlength=tables["posts"].rows)).all()
    assert (values(tables, "posts", "commentcount") == fanout(tables, "comments", "postid")).all()
    assert values(tables, "posts", "answercount").sum() == (values(tables, "posts", "posttypeid") == 2).sum()


def test_nulls_of_posts_depend_on_the_type(tables: Tables) -> None:
    """viewcount and answercount belong to questions alone; favoritecount to 31 % of them."""
    question = values(tables, "posts", "posttypeid") == 1
    assert (present(tables, "posts", "viewcount") == question).all()
    assert (present(tables, "posts", "answercount") == question).all()
    recorded = present(tables, "posts", "favoritecount")
    assert not (recorded & ~question).any()
    assert recorded[question].mean() == pytest.approx(1 - 0.6914, abs=0.01)


def test_nulls_of_votes_depend_on_the_type(tables: Tables) -> None:
    """Only favourites and bounties name their user; the amount belongs to bounties that start, or end on an answer."""
    kind = values(tables, "votes", "votetypeid")
    assert (present(tables, "votes", "userid") == np.isin(kind, (5, 8))).all()
    on_answer = values(tables, "posts", "posttypeid")[parents_of(tables, "votes", "postid")] == 2
    assert (present(tables, "votes", "bountyamount") == ((kind == 8) | ((kind == 9) & on_answer))).all()


def test_a_favourite_is_given_once(tables: Tables) -> None:
    """(post, user) is unique among favourites, but for a handful."""
    favourite = values(tables, "votes", "votetypeid") == 5
    pairs = values(tables, "votes", "postid").astype(np.int64) * 100_000 + values(tables, "votes", "userid")
    assert favourite.sum() - len(np.unique(pairs[favourite])) < 100


def test_history_begins_with_the_post(tables: Tables) -> None:
    """Each post has one row of type 2 and each question one of types 1 and 3, at its creation, by its owner."""
    kind, post = values(tables, "posthistory", "posthistorytypeid"), parents_of(tables, "posthistory", "postid")
    question = values(tables, "posts", "posttypeid") == 1
    for one, expected in ((1, question), (2, np.ones_like(question)), (3, question)):
        rows = kind == one
        assert (np.bincount(post[rows], minlength=len(question)) == expected).all()
        assert (values(tables, "posthistory", "creationdate")[rows] == values(tables, "posts", "creationdate")[post[rows]]).all()
        assert (values(tables, "posthistory", "userid")[rows] == values(tables, "posts", "owneruserid")[post[rows]]).all()


def test_events_without_a_user(tables: Tables) -> None:
    """Suggested edits and tweets have no user."""
    anonymous = np.isin(values(tables, "posthistory", "posthistorytypeid"), (24, 25))
    assert anonymous.sum() > 10_000
    assert not present(tables, "posthistory", "userid")[anonymous].any()


def test_links_join_questions(tables: Tables) -> None:
    """Both ends of a link are questions, different ones, and the related one is older than the link."""
    ends = [parents_of(tables, "postlinks", column) for column in ("postid", "relatedpostid")]
    assert (ends[0] != ends[1]).all()
    for end in ends:
        assert (values(tables, "posts", "posttypeid")[end] == 1).all()
        assert (values(tables, "posts", "creationdate")[end] <= values(tables, "postlinks", "creationdate")).all()


def test_excerpts_are_distinct(tables: Tables) -> None:
    """No post is the excerpt of two tags."""
    posts = parents_of(tables, "tags", "excerptpostid")
    assert len(posts) == 596
    assert len(np.unique(posts)) == len(posts)


@pytest.mark.parametrize(
    ("table", "column", "time"),
    [
        ("badges", "userid", "date"),
        ("comments", "postid", "creationdate"),
        ("comments", "userid", "creationdate"),
        ("posthistory", "postid", "creationdate"),
        ("posthistory", "userid", "creationdate"),
        ("posts", "owneruserid", "creationdate"),
        ("votes", "postid", "creationdate"),
        ("votes", "userid", "creationdate"),
    ],
)
def test_children_are_not_older_than_parents(tables: Tables, table: str, column: str, time: str) -> None:
    """Nothing happens before its post or its user is there; votes hold only the day."""
    mask = present(tables, table, column)
    parent = values(tables, FOREIGN_KEYS[table, column], "creationdate")[parents_of(tables, table, column)]
    child = values(tables, table, time)[mask]
    early = child // DAY < parent // DAY if table == "votes" else child < parent
    assert early.mean() < 0.0005


@pytest.mark.parametrize(
    ("table", "column", "share"),
    [
        ("posts", "owneruserid", 0.0151),
        ("posts", "lasteditoruserid", 0.515),
        ("votes", "userid", 0.894),
        ("votes", "bountyamount", 0.9947),
        ("comments", "userid", 0.0178),
        ("posthistory", "userid", 0.0665),
        ("tags", "excerptpostid", 0.4225),
    ],
)
def test_null_shares(tables: Tables, table: str, column: str, share: float) -> None:
    """The shares of NULL are those of the real data."""
    assert 1 - present(tables, table, column).mean() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(
    ("table", "column", "with_child", "largest", "size_biased"),
    [
        ("badges", "userid", 25_078, 456, 19.3),
        ("posts", "owneruserid", 21_983, 1_720, 165),
        ("posts", "lasteditoruserid", 6_578, 2_807, 807),
        ("votes", "userid", 5_543, 712, 90.3),
        ("votes", "postid", 76_833, 427, 16.2),
        ("comments", "postid", 53_418, 45, 5.57),
        ("postlinks", "postid", 7_604, 13, 2.01),
        ("postlinks", "relatedpostid", 5_177, 96, 8.34),
    ],
)
def test_fanouts(tables: Tables, table: str, column: str, with_child: int, largest: int, size_biased: float) -> None:
    """Parents with children, the largest fan-out and sum n^2 / sum n are near the real ones."""
    counts = fanout(tables, table, column)
    assert (counts > 0).sum() == pytest.approx(with_child, rel=0.25)
    assert counts.max() == pytest.approx(largest, rel=0.4)
    assert (counts**2).sum() / counts.sum() == pytest.approx(size_biased, rel=0.6)


def test_marginals(tables: Tables) -> None:
    """Quantiles of attributes are near the real ones."""
    expected = {
        ("users", "reputation"): {50: 11, 75: 101, 95: 163},
        ("users", "views"): {50: 0, 90: 8, 99: 96},
        ("users", "upvotes"): {75: 0, 90: 3, 99: 74},
        ("users", "downvotes"): {95: 0},
        ("posts", "score"): {5: 0, 50: 2, 90: 6, 99: 20},
        ("comments", "score"): {75: 0, 90: 1, 99: 4},
    }
    for (table, column), quantiles in expected.items():
        for percent, value in quantiles.items():
            assert np.percentile(values(tables, table, column), percent) == pytest.approx(value, rel=0.2, abs=1)


USER_SIDE = {
    "badges": ("badges", "userid"),
    "owner": ("posts", "owneruserid"),
    "editor": ("posts", "lasteditoruserid"),
    "votes": ("votes", "userid"),
    "comments": ("comments", "userid"),
    "history": ("posthistory", "userid"),
}
POST_SIDE = {
    "votes": ("votes", "postid"),
    "comments": ("comments", "postid"),
    "history": ("posthistory", "postid"),
    "links": ("postlinks", "postid"),
    "linked": ("postlinks", "relatedpostid"),
}


def amplification(tables: Tables, children: list[tuple[str, str]]) -> float:
    """Return the size of the join of all children of one parent, over what independent and uniform fan-outs predict."""
    product, predicted = np.ones(1), 1.0
    for table, column in children:
        counts = fanout(tables, table, column).astype(np.float64)
        product, predicted = product * counts, predicted * counts.mean()
    return float(product.mean()) / predicted


@pytest.mark.parametrize(
    ("names", "real"),
    [
        ("badges badges", 9.76),
        ("owner badges", 20.79),
        ("owner owner", 73.31),
        ("editor badges", 53.86),
        ("editor owner", 157.1),
        ("editor editor", 729.5),
        ("votes badges", 15.34),
        ("votes owner", 35.02),
        ("votes editor", 115.6),
        ("votes votes", 104.7),
        ("comments badges", 48.73),
        ("comments owner", 151.2),
        ("comments editor", 445.5),
        ("comments votes", 77.28),
        ("comments comments", 493.7),
        ("history badges", 28.42),
        ("history owner", 80.73),
        ("history editor", 316.8),
        ("history votes", 52.93),
        ("history comments", 212.2),
        ("history history", 149.3),
        ("badges owner votes", 3_457),
        ("badges owner comments", 20_670),
        ("badges comments history", 32_370),
        ("badges votes comments", 10_100),
        ("owner votes comments history", 25.39e6),
        ("badges owner votes comments history", 4.225e9),
    ],
)
def test_user_side_joins_are_as_large_as_the_real_ones(tables: Tables, names: str, real: float) -> None:
    """Heavy users are heavy everywhere: join sizes over a common user are within a factor 3 of the real ones."""
    assert 1 / 3 < amplification(tables, [USER_SIDE[name] for name in names.split()]) / real < 3


@pytest.mark.parametrize(
    ("names", "real"),
    [
        ("votes votes", 4.529),
        ("comments votes", 1.392),
        ("comments comments", 2.939),
        ("history votes", 1.221),
        ("history comments", 1.229),
        ("history history", 1.708),
        ("links votes", 1.76),
        ("links comments", 1.678),
        ("links links", 16.64),
        ("linked votes", 7.986),
        ("linked comments", 1.584),
        ("linked links", 7.03),
        ("linked linked", 69.1),
    ],
)
def test_post_side_joins_are_mild(tables: Tables, names: str, real: float) -> None:
    """Join sizes over a common post are within a factor 2 of the real, mostly mild ones."""
    assert 1 / 2 < amplification(tables, [POST_SIDE[name] for name in names.split()]) / real < 2


def test_the_shape_does_not_depend_on_the_scale() -> None:
    """A small database has fewer users, not lazier ones: join amplifications stay within a factor 3 of the real ones."""
    small = generate(0.1, 0)
    for names, real in (("owner badges", 20.79), ("comments owner", 151.2), ("comments comments", 493.7), ("editor owner", 157.1)):
        assert 1 / 3 < amplification(small, [USER_SIDE[name] for name in names.split()]) / real < 3


def test_old_posts_collect_more(tables: Tables) -> None:
    """Votes per question fall with every year: more than 10 in 2010, fewer than 2.5 in 2014."""
    year = values(tables, "posts", "creationdate").astype("datetime64[s]").astype("datetime64[Y]").astype(int) + 1970
    question = values(tables, "posts", "posttypeid") == 1
    votes = fanout(tables, "votes", "postid")
    means = [votes[question & (year == one)].mean() for one in range(2010, 2015)]
    assert means == sorted(means, reverse=True)
    assert means[0] > 10
    assert means[-1] < 2.5
