"""Builds the static site and checks its links: `python -m docs.tools.site`, in the environment of `make docs`.

Pages link to each other and to source files by their paths in the repository. So that these links work on the site as
they do in a checkout, the pages and the files that they link to are laid out in one folder just as they lie here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from docs.tools.pages import ROOT, links, pages

STAGE = ROOT / "build" / "pages"
SITE = ROOT / "build" / "site"


class _References(HTMLParser):
    """What a built page refers to, and the places in it that can be referred to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.places: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets.update(value for name, value in attrs if name in ("href", "src") and value)
        self.places.update(value for name, value in attrs if name in ("id", "name") and value)


def stage() -> None:
    """Copy every page, and every file that a page links to, into `STAGE`."""
    shutil.rmtree(STAGE, ignore_errors=True)
    wanted = {path for page in pages() for path in (page, *(link.path for link in links(page)))}
    for path in sorted(path for path in wanted if path.is_file()):
        copy = STAGE / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def broken_links() -> list[str]:
    """`PAGE: TARGET` for everything on the built site that leads to a file or place that is not there."""
    known = {page: _References(page) for page in sorted(SITE.rglob("*.html")) if page.name != "404.html"}
    broken = []
    for page, references in known.items():
        for target in sorted(references.targets):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            place = unquote(parts.fragment)
            if not path.is_file() or (place and path in known and place not in known[path].places):
                broken.append(f"{page.relative_to(SITE)}: {target}")
    return broken


def main() -> int:
    """Build, then check; 0 when all is well."""
    stage()
    shutil.rmtree(SITE, ignore_errors=True)
    program = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    if code := subprocess.run(program, cwd=ROOT, check=False).returncode:
        return code
    broken = broken_links()
    sys.stderr.write("".join(f"broken link in {line}\n" for line in broken))
    sys.stderr.write(f"{len(list(SITE.rglob('*.html')))} pages in {SITE.relative_to(ROOT)}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
