"""
Adapting matplotlib's SVG for the page and for files.

A `Plot` has placeholders for colours and links. On the page, colours follow the light or dark scheme and links point to queries; a file
has fixed colours and no links.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any
from urllib.parse import quote, unquote

COLOURS: Mapping[str, tuple[str, str]] = {
    "#010101": ("ink", "#1b1b1f"),
    "#020202": ("quiet", "#6b6b76"),
    "#030303": ("line", "#d5d5dc"),
    "#040404": ("win", "#00735f"),
    "#050505": ("loss", "#b45309"),
    "#060606": ("tie", "#9a9aa5"),
    "#070701": ("side-0", "#4457c0"),
    "#070702": ("side-1", "#a0339a"),
    "#070703": ("side-2", "#5d6b7c"),
    "#070704": ("side-3", "#c2487f"),
    "#070705": ("side-4", "#7a7a1f"),
    "#070706": ("side-5", "#2f8fc4"),
}
"""The placeholder colours of plots, with the name of each on the page and its colour in a file; `win` and `loss` mean nothing else."""

INK, QUIET, LINE, WIN, LOSS, TIE, *SIDES = COLOURS
OUTCOMES = {"win": WIN, "loss": LOSS, "tie": TIE}

_COLOUR = re.compile("|".join(COLOURS))
_ID = re.compile(r' id="([^"]+)"')
_REFERENCE = re.compile(r'(url\(#|href="#)([^")]+)')
_LINK = re.compile(r'<a xlink:href="query:([^"]+)"[^>]*>')
_ANY_LINK = re.compile(r"</?a(?: [^>]*)?>")
_HEAD = re.compile(r"^.*?(?=<svg)|<metadata>.*?</metadata>|<!--.*?-->", re.DOTALL)
_SIZE = re.compile(r' (?:width|height)="[^"]*"')
_STYLE = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_BLANKS = re.compile(r"\s*\n\s*")
_GROUP = re.compile(r"<g>\s*((?:(?!</?g\b).)*)</g>\s*", re.DOTALL)
_PATH = re.compile(r' d="([^"]*)"')
_JOINT = re.compile(r"\s*([A-Za-z])\s*")
_BOX = re.compile(r"M(\S+) (\S+)L(\S+) \2L\3 (\S+)L\1 \4z")
_LETTER, _SIDES = r"\1", r"M\1 \2H\3V\4H\1z"
_UNTURNED = re.compile(r' transform="rotate\(-0 [^"]*"')
_FONT = re.compile(r"'DejaVu Sans'[^;\"]*?sans-serif")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """
    A plot: `name` for files, `title` and `caption` in words, and its SVG with placeholders for colours and links.

    `titles` are the tooltips of queries, by the key of the link. The `first` plots come before the tables; `small` ones need less room.
    """

    name: str
    title: str
    caption: str
    svg: str
    titles: Mapping[str, str] = field(default_factory=dict)
    first: bool = False
    small: bool = False

    def for_page(self, prefix: str) -> str:
        """Return the SVG for a page: colours by name, links to `#<prefix><query>`, and ids that no other plot has."""
        svg = _sizeless(_STYLE.sub("", self.svg, count=1))
        role = "group" if self.titles else "img"  # an image has no links to a screen reader
        svg = svg.replace("<svg ", f'<svg role="{role}" tabindex="0" aria-label="{escape(f"{self.title}. {self.caption}")}" ', 1)
        own = {reference for _, reference in _REFERENCE.findall(svg)}
        short = {reference: f"{prefix}{self.name}-{number}" for number, reference in enumerate(sorted(own))}
        svg = _ID.sub(lambda found: f' id="{short[found[1]]}"' if found[1] in own else "", svg)
        svg = _REFERENCE.sub(lambda found: f"{found[1]}{short[found[2]]}", svg).replace("font-family: system-ui, sans-serif; ", "")
        while svg != (flatter := _GROUP.sub(r"\1", svg)):
            svg = flatter
        svg = _COLOUR.sub(lambda found: f"var(--{COLOURS[found[0]][0]})", svg)
        return _LINK.sub(lambda found: self._link(unquote(found[1]), prefix), svg)

    def for_file(self) -> str:
        """Return the SVG for a file, on white, without links."""
        svg = _COLOUR.sub(lambda found: COLOURS[found[0]][1], _ANY_LINK.sub("", self.svg))
        return '<?xml version="1.0" encoding="utf-8"?>\n' + svg.replace("<svg ", '<svg style="background: #ffffff" ', 1)

    def _link(self, key: str, prefix: str) -> str:
        query_id, _, _ = key.rpartition("@")
        return f'<a href="#{prefix}{quote(query_id)}"><title>{escape(self.titles.get(key, ""))}</title>'


def link_to(key: str) -> str:
    """Return the placeholder link, for matplotlib, of a query on a side (`<query>@<side>`)."""
    return f"query:{quote(key)}"


def plot_of(name: str, drawn: str, **described: Any) -> Plot:
    """Return the plot of an SVG that matplotlib has written, without its header, comments and metadata, and with short numbers."""
    svg = _FONT.sub("system-ui, sans-serif", _HEAD.sub("", drawn)).strip()
    svg = _BLANKS.sub("\n", _UNTURNED.sub("", _NUMBER.sub(lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), svg)))
    svg = _PATH.sub(_short_path, svg)
    return Plot(name=re.sub(r"[^A-Za-z0-9_-]+", "-", name), svg=svg, **described)


def _short_path(found: re.Match[str]) -> str:
    """Write a path without blanks that it does not need, and a box by its sides."""
    return f' d="{_BOX.sub(_SIDES, _JOINT.sub(_LETTER, found[1]))}"'


def _sizeless(svg: str) -> str:
    """Remove the size of the root, so that the SVG fills its container."""
    end = svg.index(">")
    return _SIZE.sub("", svg[:end]) + svg[end:]
