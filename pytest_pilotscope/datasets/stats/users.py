"""Users: one latent activity each, and attributes and fan-outs that follow it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .calibration import Quantiles, full_rows, histogram, quantiles, scaled
from .clock import DAY, after, age
from .draws import BIT, Draws, Ints, place_in_group, top

# Noise of each fan-out around the shared activity, in doublings: 0 would make the heaviest user the heaviest everywhere,
# large values make the fan-outs independent (tenths). Calibrated on the join amplifications of the profile.
NOISE = {
    "badges.userid": 11,
    "posts.owneruserid": 10,
    "posts.lasteditoruserid": 14,
    "votes.userid": 44,
    "comments.userid": 10,
    "users.reputation": 12,
    "users.views": 14,
    "users.upvotes": 16,
    "users.downvotes": 24,
}
# What old accounts have more of at the same activity, in tenths of a doubling over the life of the site.
SENIORITY = {"badges.userid": 10, "votes.userid": 25, "users.reputation": 22, "users.views": 18, "users.upvotes": 10}
# How much heavier the activity of early users is, by age in 1/1000 of the life of the site: the founders stay the heaviest.
WEIGHTS = Quantiles(positions=np.array([0, 170, 500, 880, 1000]), values=np.array([760, 850, 1000, 1150, 1600]))
COMMUNITY_ID = -1  # the site's own account, as in the original data
ASSOCIATION_BONUS = 101  # the reputation of someone who comes from a sister site; 18.6 % of users, mostly silent ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """Users, all (n,): ids and creation times ascending, the latent activity in 1/BIT doublings."""

    ids: Ints
    created_s: Ints
    activity: Ints

    def aligned(self, draws: Draws, what: str) -> Ints:
        """Draw a score (n,): the activity with the noise of the attribute or fan-out `what`."""
        # The quiet ones differ less from one another than the heavy ones: they can do nothing or a little.
        loudness = np.clip(self.activity, BIT, 4 * BIT) // 4
        noise = draws.bell(len(self.ids)) * NOISE[what] // 10 * loudness // BIT
        return self.activity + noise + age(self.created_s, BIT) * SENIORITY.get(what, 0) // 10

    def tokens(self, draws: Draws, what: str, count: int) -> Ints:
        """Draw user numbers with repetition, ascending, `count` in all: the children of the foreign key `what`."""
        fanout = histogram(what).by_rank(self.aligned(draws, what))
        return draws.resized(np.repeat(np.arange(len(fanout), dtype=np.int64), fanout), count)


def make_users(seed: int, scale: float) -> Users:
    """Draw the users."""
    draws = Draws(seed, "users")
    size = scaled(full_rows("users"), scale)
    created_s = np.sort(quantiles("users.creationdate").drawn(draws, size))
    # Early users are no more likely to take part at all, but far more likely to become the heavy ones.
    activity = draws.exponential(size) * WEIGHTS.at(age(created_s, 1000)) // 1000
    ids = np.cumsum(1 + (draws.below(1000, size) < 382))
    ids[0] = COMMUNITY_ID
    return Users(ids=ids, created_s=created_s, activity=activity)


def attributes(seed: int, users: Users) -> dict[str, Ints]:
    """Draw reputation, views, up and down votes, (n,) each."""
    draws = Draws(seed, "user attributes")
    size = len(users.ids)
    columns = {
        name: histogram(f"users.{name}").sampled(users.aligned(draws, f"users.{name}")) for name in ("views", "upvotes", "downvotes")
    }
    silent = top(draws.bell(size) - users.activity // 2, scaled(186_000, size / 1_000_000))
    reputation = np.full(size, ASSOCIATION_BONUS, dtype=np.int64)
    reputation[~silent] = histogram("users.reputation").sampled(users.aligned(draws, "users.reputation")[~silent])
    return {"reputation": reputation, **columns}


def make_badges(seed: int, scale: float, users: Users) -> tuple[Ints, Ints]:
    """Draw owner (user number) and date of every badge, in the order of time."""
    draws = Draws(seed, "badges")
    owners = users.tokens(draws, "badges.userid", scaled(full_rows("badges"), scale))
    first = place_in_group(owners) == 0
    created_s = users.created_s[owners]
    date_s = np.where(first, after(created_s, quantiles("lag.first_badge"), draws), after(created_s, quantiles("lag.later_badge"), draws))
    _award_in_bulk(draws, scale, date_s, created_s)
    order = np.argsort(date_s, kind="stable")
    return owners[order], date_s[order]


def _award_in_bulk(draws: Draws, scale: float, date_s: Ints, created_s: Ints) -> None:
    """Move some badges to the seconds in which the site awarded hundreds at once."""
    for day, count in ((144, 62), (690, 145), (795, 83), (1444, 899)):
        second = quantiles("users.creationdate").values[0] + day * DAY
        eligible = np.flatnonzero(created_s < second)
        picked = eligible[draws.below(len(eligible), scaled(count, scale))] if len(eligible) else eligible
        date_s[picked] = second


def doublings(count: Ints) -> Ints:
    """Return log2(1 + count) in 1/BIT, piecewise linear between powers of two."""
    mantissa, exponent = np.frexp((count + 1).astype(np.float64))
    return (exponent.astype(np.int64) - 1) * BIT + ((2.0 * mantissa - 1.0) * BIT).astype(np.int64)
