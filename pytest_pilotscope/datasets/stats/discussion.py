"""Comments, links between posts, and tags."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .calibration import full_rows, histogram, quantiles, scaled
from .clock import after, age, matched
from .draws import BIT, Draws, Ints, top
from .posts import QUESTION, WIKI, Posts
from .users import Users


@dataclass(frozen=True, slots=True, kw_only=True)
class Comments:
    """Comments, all (n,), in the order of time; `post` is a post number, `user` a user number or -1 for NULL."""

    post: Ints
    score: Ints
    created_s: Ints
    user: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Links, all (n,), in the order of time; `post` links to `related`, both post numbers."""

    created_s: Ints
    post: Ints
    related: Ints
    kind: Ints


def make_comments(seed: int, scale: float, users: Users, posts: Posts, counts: Ints) -> Comments:
    """Draw the comments of every post: 30 % by its owner, the others by users whose fan-out is the heaviest of all."""
    draws = Draws(seed, "comments")
    post = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    created_s = after(posts.created_s[post], quantiles("lag.comment"), draws)
    order = np.argsort(created_s, kind="stable")
    post, created_s = post[order], created_s[order]
    dice = draws.below(100_000, len(post))
    own = np.flatnonzero((dice < 30_000) & posts.owned()[post])
    others = np.flatnonzero((dice >= 31_779) | ((dice < 30_000) & ~posts.owned()[post]))
    user = np.full(len(post), -1, dtype=np.int64)
    user[own] = posts.owner[post[own]]
    wanted = np.bincount(users.tokens(draws, "comments.userid", len(own) + len(others)), minlength=len(users.ids))
    left = np.maximum(wanted - np.bincount(user[own], minlength=len(users.ids)), 0)
    tokens = draws.resized(np.repeat(np.arange(len(left), dtype=np.int64), left), len(others))
    user[others] = matched(created_s[others], tokens, users.created_s, quantiles("lag.commenter"), draws)
    score = histogram("comments.score").sampled(4 * draws.bell(len(post)) + posts.interest[post] // 2 + age(created_s, BIT))
    return Comments(post=post, score=score, created_s=created_s, user=user)


def make_links(seed: int, scale: float, posts: Posts) -> Links:
    """Draw links from young questions to older and mostly popular ones."""
    draws = Draws(seed, "links")
    questions, count = posts.of(QUESTION), scaled(full_rows("postlinks"), scale)
    interest, born_s = posts.interest[questions], posts.created_s[questions]
    # The fan-outs count posts of every kind, of which only questions are linked: the rest are the lowest scores.
    padding = np.full(len(posts.ids) - len(questions), np.iinfo(np.int64).min, dtype=np.int64)
    out_score = np.concatenate([interest // 3 + 2 * draws.bell(len(questions)), padding])
    in_score = np.concatenate([interest + draws.bell(len(questions)) * 16 // 10, padding])
    numbers = np.arange(len(posts.ids), dtype=np.int64)
    source = draws.resized(np.repeat(numbers, histogram("postlinks.postid").by_rank(out_score)), count)
    target = draws.resized(np.repeat(numbers, histogram("postlinks.relatedpostid").by_rank(in_score)), count)
    created_s = after(born_s[source], quantiles("lag.link"), draws)
    order = np.argsort(created_s, kind="stable")
    source, created_s = source[order], created_s[order]
    target = matched(created_s, target, born_s, quantiles("lag.related"), draws)
    loops = np.flatnonzero(source == target)
    target[loops] = np.where(source[loops] > 0, source[loops] - 1, source[loops] + 1)
    kind = histogram("postlinks.linktypeid").sampled(draws.below(1 << 32, count))
    return Links(created_s=created_s, post=questions[source], related=questions[target], kind=kind)


def make_tags(seed: int, scale: float, posts: Posts) -> tuple[Ints, Ints]:
    """Return count and excerpt (post number, -1 for NULL; no post twice) of every tag; frequent tags are described earlier."""
    draws = Draws(seed, "tags")
    size = scaled(full_rows("tags"), scale)
    score = draws.bell(size)
    pages = posts.of(WIKI)
    described = top(score + draws.bell(size), min(len(pages), size * 596 // full_rows("tags")))
    excerpts = np.full(size, -1, dtype=np.int64)
    rows = np.flatnonzero(described)
    picked = np.sort(pages[draws.shuffled(len(pages))[: len(rows)]])
    excerpts[rows[np.argsort(-score[rows] + draws.bell(len(rows)), kind="stable")]] = picked
    return quantiles("tags.count").by_rank(score), excerpts
