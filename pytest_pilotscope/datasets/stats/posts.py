"""Posts: their owners, times and types, and the latent interest that votes, views, answers and links follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .calibration import full_rows, histogram, quantiles, scaled
from .clock import after, age
from .draws import BIT, Draws, Ints, place_in_group, top
from .users import Users, doublings

QUESTION, ANSWER, WIKI, EXCERPT = 1, 2, 4, 5
# P(question) in 1/1000 by the number of posts of the owner: newcomers ask, regulars answer.
ASKS = ((1, 839), (2, 805), (3, 753), (5, 678), (10, 570), (20, 405), (50, 257), (100, 128), (300, 20))


@dataclass(frozen=True, slots=True, kw_only=True)
class Posts:
    """Posts, all (n,), in the order of time. `owner` is a user number, -1 for none; `interest` is in 1/BIT doublings."""

    ids: Ints
    created_s: Ints
    kind: Ints
    owner: Ints
    owner_posts: Ints
    interest: Ints

    def of(self, kind: int) -> Ints:
        """Return the post numbers of this kind, ascending."""
        return np.flatnonzero(self.kind == kind)

    def owned(self) -> NDArray[np.bool_]:
        """Return a mask (n,) of the posts that have an owner."""
        return self.owner >= 0


def make_posts(seed: int, scale: float, users: Users) -> Posts:
    """Draw the posts from their owners' fan-outs; the times follow from the owners' lives."""
    draws = Draws(seed, "posts")
    size = scaled(full_rows("posts"), scale)
    ownerless = size * 15_134 // 1_000_000
    owner = users.tokens(draws, "posts.owneruserid", size - ownerless)
    born = users.created_s[owner]
    first = after(born, quantiles("lag.first_post"), draws)
    later = after(born, quantiles("lag.later_post"), draws)
    created_s = np.where(place_in_group(owner) == 0, first, later)
    owner_posts = np.bincount(owner, minlength=len(users.ids))[owner]
    created_s = np.concatenate([created_s, quantiles("posts.creationdate").drawn(draws, ownerless)])
    owner = np.concatenate([owner, np.full(ownerless, -1, dtype=np.int64)])
    owner_posts = np.concatenate([owner_posts, np.full(ownerless, 10, dtype=np.int64)])
    order = np.argsort(created_s, kind="stable")
    created_s, owner, owner_posts = created_s[order], owner[order], owner_posts[order]
    kind = _kinds(draws, scale, owner_posts)
    return Posts(
        ids=np.cumsum(1 + (draws.below(1000, size) < 254)),
        created_s=created_s,
        kind=kind,
        owner=owner,
        owner_posts=owner_posts,
        interest=_interest(draws, created_s, owner_posts, kind),
    )


def _kinds(draws: Draws, scale: float, owner_posts: Ints) -> Ints:
    """Draw question or answer by the owner's habits, and the few wiki pages, excerpts and others anywhere."""
    edges, shares = np.asarray(ASKS, dtype=np.int64).T
    share = shares[np.searchsorted(edges, owner_posts, side="right") - 1]
    size = len(owner_posts)
    kind = np.full(size, ANSWER, dtype=np.int64)
    kinds = histogram("posts.posttypeid")
    shuffled, at = draws.shuffled(size), 0
    rare = np.zeros(size, dtype=np.bool_)
    for value, count in zip(kinds.values.tolist(), kinds.counts.tolist(), strict=True):
        if value not in (QUESTION, ANSWER):
            chosen = shuffled[at : at + scaled(count, scale)]
            kind[chosen], rare[chosen] = value, True
            at += len(chosen)
    inclination = np.where(rare, -1, share + draws.below(1000, size))
    kind[top(inclination, scaled(int(kinds.counts[kinds.values == QUESTION][0]), scale))] = QUESTION
    return kind


def _interest(draws: Draws, created_s: Ints, owner_posts: Ints, kind: Ints) -> Ints:
    """Draw the attention that a post gets: heavy-tailed, more so for old posts and (answers) for well-known owners."""
    size = len(kind)
    old = age(created_s, 1000)
    fame = np.where(kind == ANSWER, doublings(owner_posts) // 8, doublings(owner_posts) // 16)
    weight = np.where(kind == ANSWER, 850 + old * 3 // 10, 650 + old * 7 // 10 + np.maximum(old - 880, 0) * 5)
    return draws.exponential(size) * weight // 1000 + old * BIT * np.where(kind == ANSWER, 6, 13) // 10_000 + fame


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """The counts from which the child tables are drawn, and views (0 unless a question), all (n,)."""

    ups: Ints
    downs: Ints
    favorites: Ints
    favorable: NDArray[np.bool_]
    comments: Ints
    answers: Ints
    views: Ints


def receive(seed: int, scale: float, posts: Posts) -> Reception:
    """Draw the counts of votes, favourites, comments, answers and views of each post."""
    draws = Draws(seed, "reception")
    ups, downs = _verdicts(draws, scale, posts)
    favorites, favorable = _favorites(draws, scale, posts)
    return Reception(
        ups=ups,
        downs=downs,
        favorites=favorites,
        favorable=favorable,
        comments=_comment_counts(draws, scale, posts),
        answers=_answer_counts(draws, posts),
        views=_views(draws, posts),
    )


def _noisy(draws: Draws, score: Ints, tenths: int) -> Ints:
    """Return the score with bell-shaped noise of `tenths`/10 doublings."""
    return score + draws.bell(len(score)) * tenths // 10


def _counted(draws: Draws, counts: Ints, total: int) -> Ints:
    """Return `counts` (n,) with random ones added or removed until they have this total."""
    tokens = draws.resized(np.repeat(np.arange(len(counts), dtype=np.int64), counts), total)
    return np.bincount(tokens, minlength=len(counts))


def _verdicts(draws: Draws, scale: float, posts: Posts) -> tuple[Ints, Ints]:
    """Draw up and down votes of every post: the score by rank of interest, down votes if it is negative, and some by chance."""
    score = np.zeros(len(posts.ids), dtype=np.int64)
    for kind, name in ((QUESTION, "score.question"), (ANSWER, "score.answer")):
        rows = posts.of(kind)
        score[rows] = histogram(name).sampled(_noisy(draws, posts.interest[rows], 7))
    downs = np.maximum(-score, 0)
    judged = np.flatnonzero((posts.kind == QUESTION) | (posts.kind == ANSWER))
    spare = max(0, scaled(5328, scale) - int(downs.sum()))
    downs += np.bincount(judged[draws.below(len(judged), spare)], minlength=len(downs))
    return _counted(draws, score + downs, scaled(262_116, scale)), downs


def _favorites(draws: Draws, scale: float, posts: Posts) -> tuple[Ints, NDArray[np.bool_]]:
    """Draw the number of users who favour each question, and the mask of questions that record it."""
    questions = posts.of(QUESTION)
    score = _noisy(draws, posts.interest[questions], 9)
    recorded = top(score, scaled(histogram("favoritecount").owners, scale))
    counts = np.zeros(len(posts.ids), dtype=np.int64)
    counts[questions[recorded]] = histogram("favoritecount").by_rank(score[recorded])
    favorable = np.zeros(len(posts.ids), dtype=np.bool_)
    favorable[questions[recorded]] = True
    return _counted(draws, counts, scaled(33_691, scale)), favorable


def _comment_counts(draws: Draws, scale: float, posts: Posts) -> Ints:
    """Draw comments per post: nearly independent of the interest, none on wiki pages and excerpts."""
    score = _noisy(draws, posts.interest * np.where(posts.kind == QUESTION, 1, 4) // 10, 20)
    score += np.where(posts.kind == QUESTION, BIT * 12 // 10, 0) - age(posts.created_s, BIT // 2)
    score[(posts.kind == WIKI) | (posts.kind == EXCERPT)] = np.iinfo(np.int64).min
    counts = histogram("commentcount").by_rank(score)
    return _counted(draws, counts, scaled(full_rows("comments"), scale))


def _answer_counts(draws: Draws, posts: Posts) -> Ints:
    """Draw answers per question; they add up to the number of answers."""
    questions = posts.of(QUESTION)
    counts = np.zeros(len(posts.ids), dtype=np.int64)
    counts[questions] = histogram("answercount").by_rank(_noisy(draws, posts.interest[questions], 12))
    return _counted(draws, counts, len(posts.of(ANSWER)))


def _views(draws: Draws, posts: Posts) -> Ints:
    """Draw views of questions: mostly by age, then by interest."""
    questions = posts.of(QUESTION)
    score = _noisy(draws, posts.interest[questions] + age(posts.created_s[questions], 3 * BIT), 8)
    views = np.zeros(len(posts.ids), dtype=np.int64)
    views[questions] = quantiles("posts.viewcount").by_rank(score)
    return views
