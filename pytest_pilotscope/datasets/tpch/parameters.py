"""The substitution parameters of the 22 queries: each is drawn as clause 2.4.N.3 of the specification says."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from typing import TypeAlias

Parameters: TypeAlias = Mapping[str, str | int]

REGION_OF: Mapping[str, str] = {
    nation: region
    for region, nations in {
        "AFRICA": ("ALGERIA", "ETHIOPIA", "KENYA", "MOROCCO", "MOZAMBIQUE"),
        "AMERICA": ("ARGENTINA", "BRAZIL", "CANADA", "PERU", "UNITED STATES"),
        "ASIA": ("CHINA", "INDIA", "INDONESIA", "JAPAN", "VIETNAM"),
        "EUROPE": ("FRANCE", "GERMANY", "ROMANIA", "RUSSIA", "UNITED KINGDOM"),
        "MIDDLE EAST": ("EGYPT", "IRAN", "IRAQ", "JORDAN", "SAUDI ARABIA"),
    }.items()
    for nation in nations
}
REGIONS = tuple(dict.fromkeys(REGION_OF.values()))
SEGMENTS = ("AUTOMOBILE", "BUILDING", "FURNITURE", "HOUSEHOLD", "MACHINERY")
SHIP_MODES = ("AIR", "FOB", "MAIL", "RAIL", "REG AIR", "SHIP", "TRUCK")
TYPES = (
    ("STANDARD", "SMALL", "MEDIUM", "LARGE", "ECONOMY", "PROMO"),
    ("ANODIZED", "BURNISHED", "PLATED", "POLISHED", "BRUSHED"),
    ("TIN", "NICKEL", "BRASS", "STEEL", "COPPER"),
)
CONTAINERS = (("SM", "LG", "MED", "JUMBO", "WRAP"), ("CASE", "BOX", "BAG", "JAR", "PKG", "PACK", "CAN", "DRUM"))
_COLORS = """
    almond antique aquamarine azure beige bisque black blanched blue blush brown burlywood burnished chartreuse chiffon
    chocolate coral cornflower cornsilk cream cyan dark deep dim dodger drab firebrick floral forest frosted gainsboro ghost
    goldenrod green grey honeydew hot indian ivory khaki lace lavender lawn lemon light lime linen magenta maroon medium
    metallic midnight mint misty moccasin navajo navy olive orange orchid pale papaya peach peru pink plum powder puff
    purple red rose rosy royal saddle salmon sandy seashell sienna sky slate smoke snow spring steel tan thistle tomato
    turquoise violet wheat white yellow
"""
COLORS = tuple(_COLORS.split())
REQUESTS = (("special", "pending", "unusual", "express"), ("packages", "requests", "accounts", "deposits"))


class Draw:
    """The random draws that several queries need."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def month(self, first: tuple[int, int], last: tuple[int, int]) -> str:
        """Draw the first day of a month between two (year, month)."""
        number = self.rng.randint(first[0] * 12 + first[1] - 1, last[0] * 12 + last[1] - 1)
        return date(number // 12, number % 12 + 1, 1).isoformat()

    def year(self) -> str:
        """Draw the first of January of 1993 to 1997."""
        return date(self.rng.randint(1993, 1997), 1, 1).isoformat()

    def brand(self) -> str:
        """Draw Brand#MN with M and N from 1 to 5."""
        return f"Brand#{self.rng.randint(1, 5)}{self.rng.randint(1, 5)}"

    def nation(self) -> str:
        """Draw a nation."""
        return self.rng.choice(sorted(REGION_OF))

    def words(self, *lists: tuple[str, ...]) -> str:
        """Draw a word of each list."""
        return " ".join(self.rng.choice(words) for words in lists)


def _q3(draw: Draw) -> Parameters:
    day = date(1995, 3, 1) + timedelta(days=draw.rng.randint(0, 30))
    return {"segment": draw.rng.choice(SEGMENTS), "date": day.isoformat()}


def _q7(draw: Draw) -> Parameters:
    first, second = draw.rng.sample(sorted(REGION_OF), 2)
    return {"nation1": first, "nation2": second}


def _q8(draw: Draw) -> Parameters:
    nation = draw.nation()
    return {"nation": nation, "region": REGION_OF[nation], "type": draw.words(*TYPES)}


def _q12(draw: Draw) -> Parameters:
    first, second = draw.rng.sample(SHIP_MODES, 2)
    return {"mode1": first, "mode2": second, "date": draw.year()}


def _q16(draw: Draw) -> Parameters:
    sizes = draw.rng.sample(range(1, 51), 8)
    return {"brand": draw.brand(), "type": draw.words(*TYPES[:2]), "sizes": ", ".join(map(str, sizes))}


def _q19(draw: Draw) -> Parameters:
    quantities = {f"quantity{n}": draw.rng.randint(low, low + span) for n, (low, span) in enumerate(((1, 9), (10, 10), (20, 10)), 1)}
    return {**quantities, **{f"brand{n}": draw.brand() for n in (1, 2, 3)}}


def _q22(draw: Draw) -> Parameters:
    return {"codes": ", ".join(f"'{code}'" for code in draw.rng.sample(range(10, 35), 7))}


RULES: Mapping[int, Callable[[Draw], Parameters]] = {
    1: lambda draw: {"delta": draw.rng.randint(60, 120)},
    2: lambda draw: {"size": draw.rng.randint(1, 50), "type": draw.words(TYPES[2]), "region": draw.words(REGIONS)},
    3: _q3,
    4: lambda draw: {"date": draw.month((1993, 1), (1997, 10))},
    5: lambda draw: {"region": draw.words(REGIONS), "date": draw.year()},
    6: lambda draw: {"date": draw.year(), "discount": f"0.0{draw.rng.randint(2, 9)}", "quantity": draw.rng.randint(24, 25)},
    7: _q7,
    8: _q8,
    9: lambda draw: {"color": draw.words(COLORS)},
    10: lambda draw: {"date": draw.month((1993, 2), (1995, 1))},
    11: lambda draw: {"nation": draw.nation()},
    12: _q12,
    13: lambda draw: {"word1": draw.words(REQUESTS[0]), "word2": draw.words(REQUESTS[1])},
    14: lambda draw: {"date": draw.month((1993, 1), (1997, 12))},
    15: lambda draw: {"date": draw.month((1993, 1), (1997, 10))},
    16: _q16,
    17: lambda draw: {"brand": draw.brand(), "container": draw.words(*CONTAINERS)},
    18: lambda draw: {"quantity": draw.rng.randint(312, 315)},
    19: _q19,
    20: lambda draw: {"color": draw.words(COLORS), "date": draw.year(), "nation": draw.nation()},
    21: lambda draw: {"nation": draw.nation()},
    22: _q22,
}
"""Query number -> how its parameters are drawn."""
