"""Edits: the last editor of each post, and the history of every post."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .calibration import full_rows, histogram, quantiles, scaled
from .clock import after, age, matched
from .draws import BIT, Draws, Ints, place_in_group, top
from .posts import ANSWER, QUESTION, Posts
from .users import Users

TITLE, BODY, TAGS = 1, 2, 3  # the initial rows; 4, 5, 6 are edits of the same
EDIT_TITLE, EDIT_BODY, EDIT_TAGS, SUGGESTED, TWEETED = 4, 5, 6, 24, 25
QUESTIONS_ONLY = (EDIT_TITLE, EDIT_TAGS)
# The others in the order in which edited posts get them before untouched ones do.
EDITS_FIRST = (SUGGESTED, EDIT_BODY, 8, 7, 9, TWEETED, 34, 33, 36, 12, 13, 16, 10, 11, 14, 38)
OWN_SHARE = 52  # percent of a user's posts that the user may have edited last


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """The last editor of each post (user number, -1 if never edited) and the moment of the edit, both (n posts,)."""

    editor: Ints
    edited_s: Ints

    def edited(self) -> NDArray[np.bool_]:
        """Return a mask (n,) of the edited posts."""
        return self.editor >= 0


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Events of posts, all (n,), in the order of time; `post` is a post number, `user` a user number or -1 for NULL."""

    kind: Ints
    post: Ints
    created_s: Ints
    user: Ints


def make_edits(seed: int, scale: float, users: Users, posts: Posts, comments: Ints) -> Edits:
    """Draw the last editors: half of them the owners themselves, the others a few heavy editors."""
    draws = Draws(seed, "edits")
    tokens = users.tokens(draws, "posts.lasteditoruserid", scaled(44_608, scale))
    budget = np.bincount(tokens, minlength=len(users.ids))
    edited_s = after(posts.created_s, quantiles("lag.edit"), draws)
    own = _self_edited(draws, posts, budget)
    chosen = own | _edited_by_others(draws, scale, posts, comments, own)
    editor = np.where(own, posts.owner, -1)
    spent = np.bincount(posts.owner[own], minlength=len(budget))
    left = np.repeat(np.arange(len(budget), dtype=np.int64), budget - spent)
    others = np.flatnonzero(chosen & ~own)
    editor[others] = matched(edited_s[others], draws.resized(left, len(others)), users.created_s, quantiles("lag.editor"), draws)
    return Edits(editor=editor, edited_s=np.where(chosen, edited_s, posts.created_s))


def _self_edited(draws: Draws, posts: Posts, budget: Ints) -> NDArray[np.bool_]:
    """Return a mask (n posts,) of the posts that their owner edited last. Questions come first; nobody exceeds the budget of edits."""
    rows = np.flatnonzero(posts.owned())
    order = np.lexsort((draws.below(1 << 32, len(rows)) - (posts.kind[rows] == QUESTION) * (1 << 31), posts.owner[rows]))
    rows = rows[order]
    owned = np.bincount(posts.owner[rows], minlength=len(budget))
    limit = np.minimum(budget, (owned * OWN_SHARE + 99) // 100)
    mask = np.zeros(len(posts.ids), dtype=np.bool_)
    mask[rows] = place_in_group(posts.owner[rows]) < limit[posts.owner[rows]]
    return mask


def _edited_by_others(draws: Draws, scale: float, posts: Posts, comments: Ints, own: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask (n posts,) of the posts that somebody else edited last, preferring discussed, old and interesting posts."""
    score = 2 * draws.bell(len(posts.ids)) + posts.interest // 4 + np.minimum(comments, 6) * BIT // 6 + age(posts.created_s, BIT // 2)
    mask = np.zeros(len(posts.ids), dtype=np.bool_)
    special = (posts.kind != QUESTION) & (posts.kind != ANSWER)
    for rows, count in (
        (posts.kind == QUESTION, scaled(27_272, scale)),
        (posts.kind == ANSWER, scaled(16_051, scale)),
        (special, int(special.sum()) * 99 // 100),
    ):
        open_to = np.flatnonzero(rows & ~own)
        mask[open_to[top(score[open_to], min(len(open_to), max(0, count - int((rows & own).sum()))))]] = True
    return mask


def make_history(seed: int, scale: float, users: Users, posts: Posts, edits: Edits) -> History:
    """Draw three initial rows for a question, one for any other post, and the edits and events after them."""
    draws = Draws(seed, "history")
    everything, questions = np.arange(len(posts.ids), dtype=np.int64), posts.of(QUESTION)
    initial = [(BODY, everything), (TITLE, questions), (TAGS, questions)]
    parts = [(np.full(len(rows), kind, dtype=np.int64), rows, posts.created_s[rows], posts.owner[rows]) for kind, rows in initial]
    missing = scaled(full_rows("posthistory"), scale) - sum(len(rows) for _, rows in initial)
    last = np.flatnonzero(edits.edited())
    more = _more_edits(draws, posts, edits, max(0, missing - len(last)))
    post = np.concatenate([last, more])
    kind = _event_kinds(draws, posts, edits, post)
    created_s = np.concatenate([edits.edited_s[last], _between(draws, posts, edits, more)])
    user = np.concatenate([edits.editor[last], _event_users(draws, users, posts, edits, more, created_s[len(last) :])])
    user[(kind == SUGGESTED) | (kind == TWEETED)] = -1
    parts.append((kind, post, created_s, user))
    kind, post, created_s, user = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.lexsort((kind, created_s))
    return History(kind=kind[order], post=post[order], created_s=created_s[order], user=user[order])


def _more_edits(draws: Draws, posts: Posts, edits: Edits, count: int) -> Ints:
    """Draw post numbers (count,) of the events beside the last edit, by the habits of each kind of post."""
    edited, counts = edits.edited(), np.zeros(len(posts.ids), dtype=np.int64)
    question, answer = posts.kind == QUESTION, posts.kind == ANSWER
    for rows, name in (
        (question & edited, "edits.question_edited"),
        (question & ~edited, "edits.question"),
        (answer & edited, "edits.answer_edited"),
        (answer & ~edited, "edits.answer"),
        (~question & ~answer & edited, "edits.other"),
    ):
        where = np.flatnonzero(rows)
        counts[where] = histogram(name).by_rank(draws.below(1 << 32, len(where)))
    return draws.resized(np.repeat(np.arange(len(counts), dtype=np.int64), counts), count)


def _between(draws: Draws, posts: Posts, edits: Edits, more: Ints) -> Ints:
    """Draw a moment for every further event: before the last edit of an edited post, any time after any other post."""
    start, end = posts.created_s[more], edits.edited_s[more]
    within = start + draws.below(np.maximum(end - start, 1), len(more))
    return np.where(end > start, within, after(start, quantiles("lag.edit"), draws))


def _event_kinds(draws: Draws, posts: Posts, edits: Edits, post: Ints) -> Ints:
    """Draw types (n,): title and tag edits on edited questions, the rest by preference, in the calibrated proportions."""
    types = histogram("posthistory.posthistorytypeid")
    share = dict(zip(types.values.tolist(), types.counts.tolist(), strict=True))
    total = sum(count for kind, count in share.items() if kind not in (TITLE, BODY, TAGS))
    kinds = np.zeros(len(post), dtype=np.int64)
    eligible = np.flatnonzero((posts.kind[post] == QUESTION) & edits.edited()[post])
    eligible = eligible[draws.shuffled(len(eligible))]
    for kind in QUESTIONS_ONLY:
        count = min(len(eligible), share[kind] * len(post) // total)
        kinds[eligible[:count]], eligible = kind, eligible[count:]
    rest = np.flatnonzero(kinds == 0)
    wanted = np.asarray([share[kind] for kind in EDITS_FIRST], dtype=np.int64)
    bounds = np.cumsum(wanted) * len(rest) // wanted.sum()
    calm = ~edits.edited()[post[rest]]
    order = rest[np.argsort(draws.below(1 << 31, len(rest)) + calm * (1 << 30), kind="stable")]
    kinds[order] = np.asarray(EDITS_FIRST, dtype=np.int64)[np.searchsorted(bounds, np.arange(len(order)), side="right")]
    return kinds


def _event_users(draws: Draws, users: Users, posts: Posts, edits: Edits, more: Ints, created_s: Ints) -> Ints:
    """Draw users (n,): the owner, the last editor, or one of the heavy editors."""
    dice = draws.below(100, len(more))
    user = posts.owner[more]
    late = np.flatnonzero((dice >= 30) & (dice < 55) & edits.edited()[more])
    user[late] = edits.editor[more[late]]
    others = np.flatnonzero(dice >= 55)
    tokens = users.tokens(draws, "posts.lasteditoruserid", len(others))
    user[others] = matched(created_s[others], tokens, users.created_s, quantiles("lag.editor"), draws)
    young = np.flatnonzero((user >= 0) & (users.created_s[user] > created_s))
    user[young] = posts.owner[more[young]]
    return user
