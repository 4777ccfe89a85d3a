"""`python -m tests.docs.site` builds the documentation site into build/site; any warning or dead link is an error.

Zensical checks links between pages and their anchors. That a link leads to a file of another kind, and that the pages of
the navigation are there, it does not check (0.0.73), so this looks at every link of what was built.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

__all__ = ["dead_links", "pages_of_the_navigation", "stage"]

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "build" / "pages"
SITE = ROOT / "build" / "site"
SHOWN = ("*.md", "LICENSE", "docs/**/*", "examples/**/*", "nova/brokers/base.py", "proto/**/*.proto")
"""What the site is made of: the pages, and the files that they link to."""
SECONDS = 120


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml; what it asks Python to build is none of ours."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def pages_of_the_navigation() -> list[str]:
    """The pages that mkdocs.yml names, in its order."""
    with (ROOT / "mkdocs.yml").open(encoding="utf-8") as file:
        return _leaves(yaml.load(file, _Loader)["nav"])


def stage() -> None:
    """Copy what is shown to build/pages, in the layout of the repository."""
    shutil.rmtree(PAGES, ignore_errors=True)
    for pattern in SHOWN:
        for source in ROOT.glob(pattern):
            if source.is_file() and source.suffix != ".pyc":
                target = PAGES / source.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)


def dead_links(site: Path) -> list[str]:
    """Every link within a built site that leads nowhere, with the page it is on."""
    pages = {file: _Page(file) for file in site.rglob("*.html") if file.name != "404.html"}
    dead: list[str] = []
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("/"):
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                dead.append(f"{file.relative_to(site)}: {link}: no such file")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                dead.append(f"{file.relative_to(site)}: {link}: no such place")
    return dead


class _Page(HTMLParser):
    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {"__codelineno"}
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and (name == "href" or (name == "src" and tag in ("img", "script"))):
                self.links.add(value)
            elif value and name in ("id", "name"):
                self.anchors.add(value)


def _leaves(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    entries = nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else []
    return [leaf for entry in entries for leaf in _leaves(entry)]


def main() -> int:
    """Stage, build, look; 0 if all is well."""
    stage()
    shutil.rmtree(SITE, ignore_errors=True)
    zensical = Path(sys.executable).with_name("zensical")
    command = [str(zensical), "build", "--strict", "--clean", "--config-file", "mkdocs.yml"]
    environment = {**os.environ, "NO_COLOR": "1"}
    built = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    print(built.stdout, end="")
    if (
        built.returncode or "griffe: " in built.stdout
    ):  # which reads the docstrings; its warnings do not end a strict build
        return 1
    dead = dead_links(SITE)
    print("\n".join(dead) if dead else f"built {len(list(SITE.rglob('*.html')))} pages in {SITE}, no dead link")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
