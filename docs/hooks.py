"""Pages for the site from files beside docs/: README.md is its first page. Their links, and links to them, work in both places."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]+\.(?:md|png))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files beside docs/ to the site's pages."""
    root = Path(config.config_file_path).parent
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(root / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page with each link to another page as the site needs it; mkdocs gives all four arguments by name."""
    here = page.file.src_uri
    folder = "" if here in PAGES.values() else posixpath.dirname(f"docs/{here}")

    def on_the_site(link: re.Match[str]) -> str:
        source = posixpath.normpath(posixpath.join(folder, link[1]))
        target = PAGES.get(source, source.removeprefix("docs/"))
        return f"]({posixpath.relpath(target, posixpath.dirname(here) or '.')}"

    return _LINK.sub(on_the_site, markdown)
