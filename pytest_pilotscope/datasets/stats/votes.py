"""Votes: those that the counts of the posts are derived from, and the moderation votes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .calibration import full_rows, histogram, quantiles, scaled
from .clock import CLOSING, DAY, exchange, matched
from .draws import Draws, Ints, top
from .posts import ANSWER, QUESTION, Posts, Reception
from .users import Users

ACCEPTED, UP, DOWN, FAVORITE, BOUNTY_START, BOUNTY_END, EDIT_APPROVED = 1, 2, 3, 5, 8, 9, 16
# The other types: P(on a question) in 1/1000; the rest are on answers.
ON_QUESTION = {6: 1000, 7: 1000, 10: 60, 11: 276, 15: 626}


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes:
    """Votes, all (n,), in the order of time. `post` is a post number; `user` and `bounty` are -1 for NULL; `day_s` are whole days."""

    post: Ints
    kind: Ints
    day_s: Ints
    user: Ints
    bounty: Ints


def make_votes(seed: int, scale: float, users: Users, posts: Posts, reception: Reception) -> Votes:
    """Draw the votes, the derived ones first."""
    draws = Draws(seed, "votes")
    groups = {UP: _each(reception.ups), DOWN: _each(reception.downs), FAVORITE: _each(reception.favorites)}
    groups |= _moderation(draws, scale, posts)
    missing = scaled(full_rows("votes"), scale) - sum(map(len, groups.values()))
    groups[EDIT_APPROVED] = _edit_approvals(draws, scale, posts, max(0, missing))
    post = np.concatenate(list(groups.values()))
    kind = np.repeat(np.asarray(list(groups), dtype=np.int64), [len(rows) for rows in groups.values()])
    day_s = _days(draws, posts.created_s[post], kind)
    order = np.argsort(day_s, kind="stable")
    post, kind, day_s = post[order], kind[order], day_s[order]
    return Votes(
        post=post, kind=kind, day_s=day_s, user=_voters(draws, users, post, kind, day_s), bounty=_bounties(draws, posts, post, kind)
    )


def _each(counts: Ints) -> Ints:
    return np.repeat(np.arange(len(counts), dtype=np.int64), counts)


def _moderation(draws: Draws, scale: float, posts: Posts) -> dict[int, Ints]:
    """Draw post numbers of accepted answers, bounties, closings and the like."""
    types = histogram("votes.votetypeid")
    counts = {kind: scaled(count, scale) for kind, count in zip(types.values.tolist(), types.counts.tolist(), strict=True)}
    questions, answers = posts.of(QUESTION), posts.of(ANSWER)
    liked = top(posts.interest[answers] + 2 * draws.bell(len(answers)), min(counts[ACCEPTED], len(answers)))
    on_questions = {kind: counts[kind] * share // 1000 for kind, share in ON_QUESTION.items()}
    on_questions |= {BOUNTY_START: counts[BOUNTY_START], BOUNTY_END: counts[BOUNTY_END] * 407 // 1000}
    groups = {ACCEPTED: answers[liked]}
    for kind, here in on_questions.items():
        there = counts[kind] - here
        groups[kind] = np.concatenate([questions[draws.below(len(questions), here)], answers[draws.below(len(answers), there)]])
    return groups


def _edit_approvals(draws: Draws, scale: float, posts: Posts, count: int) -> Ints:
    """Draw post numbers of approved edits: mostly questions, then wiki pages and excerpts more often than answers."""
    questions, answers = posts.of(QUESTION), posts.of(ANSWER)
    others = np.flatnonzero((posts.kind != QUESTION) & (posts.kind != ANSWER))
    shares = (count * 714 // 1000, count * 123 // 1000)
    parts = zip((questions, answers, others), (*shares, count - sum(shares)), strict=True)
    return np.concatenate([rows[draws.below(len(rows), size)] for rows, size in parts])


def _days(draws: Draws, created_s: Ints, kind: Ints) -> Ints:
    """Draw the day of each vote: the post's own or later, by the habits of its type."""
    first = created_s // DAY
    lag = quantiles("lag.vote2").drawn(draws, len(kind)) // DAY
    for special in (ACCEPTED, FAVORITE):
        rows = np.flatnonzero(kind == special)
        lag[rows] = quantiles(f"lag.vote{special}").drawn(draws, len(rows)) // DAY
    left = CLOSING // DAY - first
    late = draws.below(left + 1, len(kind))
    return (first + np.where(lag > left, late, lag)) * DAY


def _voters(draws: Draws, users: Users, post: Ints, kind: Ints, day_s: Ints) -> Ints:
    """Draw the user of each favourite and bounty, each (post, user) once if that is possible; -1 for all other votes."""
    rows = np.flatnonzero((kind == FAVORITE) | (kind == BOUNTY_START))
    tokens = users.tokens(draws, "votes.userid", len(rows))
    born_s = users.created_s // DAY * DAY
    chosen = matched(day_s[rows], tokens, born_s, quantiles("lag.voter"), draws)
    for _ in range(16):
        again = np.flatnonzero(_repeated(post[rows] * len(users.ids) + chosen))
        near = again + draws.below(max(1, len(rows) // 20), len(again)) - len(rows) // 40
        exchange(chosen, born_s, day_s[rows], again, np.abs(near))
    voters = np.full(len(kind), -1, dtype=np.int64)
    voters[rows] = chosen
    return voters


def _repeated(key: Ints) -> NDArray[np.bool_]:
    """Return a mask (n,) of keys that occurred before."""
    order = np.argsort(key, kind="stable")
    mask = np.zeros(len(key), dtype=np.bool_)
    mask[order[1:]] = key[order[1:]] == key[order[:-1]]
    return mask


def _bounties(draws: Draws, posts: Posts, post: Ints, kind: Ints) -> Ints:
    """Draw the amount of every bounty that starts, and of those that end on an answer; -1 for all other votes."""
    offered = (kind == BOUNTY_START) | ((kind == BOUNTY_END) & (posts.kind[post] == ANSWER))
    rows = np.flatnonzero(offered)
    amounts = np.full(len(kind), -1, dtype=np.int64)
    amounts[rows] = histogram("votes.bountyamount").sampled(draws.below(1 << 32, len(rows)))
    return amounts
