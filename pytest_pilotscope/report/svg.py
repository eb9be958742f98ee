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
from urllib.parse import quote, unquote

COLOURS: Mapping[str, tuple[str, str]] = {
    "#010101": ("ink", "#1b1b1f"),
    "#020202": ("quiet", "#6b6b76"),
    "#030303": ("line", "#d5d5dc"),
    "#040404": ("win", "#0072b2"),
    "#050505": ("loss", "#d55e00"),
    "#060606": ("tie", "#9a9aa5"),
    "#070701": ("side-0", "#0072b2"),
    "#070702": ("side-1", "#d55e00"),
    "#070703": ("side-2", "#009e73"),
    "#070704": ("side-3", "#cc79a7"),
    "#070705": ("side-4", "#b8860b"),
    "#070706": ("side-5", "#56b4e9"),
}
"""The placeholder colours of plots, with the name of each on the page and its colour in a file (Okabe and Ito's colours)."""

INK, QUIET, LINE, WIN, LOSS, TIE, *SIDES = COLOURS
OUTCOMES = {"win": WIN, "loss": LOSS, "tie": TIE}

_COLOUR = re.compile("|".join(COLOURS))
_ID = re.compile(r'\bid="([^"]+)"')
_REFERENCE = re.compile(r'(url\(#|href="#)([^")]+)')
_LINK = re.compile(r'<a xlink:href="query:([^"]+)"[^>]*>')
_ANY_LINK = re.compile(r"</?a(?: [^>]*)?>")
_HEAD = re.compile(r"^.*?(?=<svg)|<metadata>.*?</metadata>|<!--.*?-->", re.DOTALL)
_SIZE = re.compile(r' (?:width|height)="[^"]*"')
_STYLE = re.compile(r"<defs>\s*<style.*?</style>\s*</defs>", re.DOTALL)
_FONT = re.compile(r"'DejaVu Sans'[^;\"]*?sans-serif")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """
    A plot: `name` for files, `caption` in words, and its SVG with placeholders for colours and links.

    `titles` are the tooltips of queries, by the key of the link; `small` plots need less room.
    """

    name: str
    caption: str
    svg: str
    titles: Mapping[str, str] = field(default_factory=dict)
    small: bool = False

    def for_page(self, prefix: str) -> str:
        """Return the SVG for a page: colours by name, links to `#<prefix><query>`, and ids that no other plot has."""
        own = set(_ID.findall(self.svg))
        unique = f"{prefix}{self.name}-"
        svg = _sizeless(_STYLE.sub("", self.svg, count=1))
        svg = _ID.sub(lambda found: f'id="{unique}{found[1]}"', svg)
        svg = _REFERENCE.sub(lambda found: f"{found[1]}{unique if found[2] in own else ''}{found[2]}", svg)
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


def plot_of(name: str, caption: str, drawn: str, *, titles: Mapping[str, str] | None = None, small: bool = False) -> Plot:
    """Return the plot of an SVG that matplotlib has written, without its header, comments and metadata."""
    svg = _FONT.sub("system-ui, sans-serif", _HEAD.sub("", drawn)).strip()
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(caption)}" ', 1)
    return Plot(name=re.sub(r"[^A-Za-z0-9_-]+", "-", name), caption=caption, svg=svg, titles=titles or {}, small=small)


def _sizeless(svg: str) -> str:
    """Remove the size of the root, so that the SVG fills its container."""
    end = svg.index(">")
    return _SIZE.sub("", svg[:end]) + svg[end:]
