"""`python -m handbook.links site` checks a built site: every link, anchor and image leads somewhere in it.

Nothing is asked of other machines. Links to them are counted; what a page needs to be shown must not be on one.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_NEEDED = {
    ("script", "src"),
    ("img", "src"),
    ("link", "href"),
    ("source", "src"),
    ("iframe", "src"),
    ("object", "data"),
}
_LINKS = _NEEDED | {("a", "href"), ("form", "action")}


@dataclass
class _Seen(HTMLParser):
    """What a page has: links, as (tag, target), and anchors."""

    links: list[tuple[str, str]] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    images_without_words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        values = dict(attrs)
        self.anchors |= {str(values[name]) for name in ("id", "name") if values.get(name)}
        self.links += [(tag, value) for name, value in attrs if (tag, name) in _LINKS and value is not None]
        if tag == "img" and not values.get("alt"):
            self.images_without_words.append(values.get("src") or "")


@dataclass(frozen=True)
class Checked:
    """What was found.

    Attributes:
        pages: How many pages there are.
        links: How many links within the site were followed.
        elsewhere: How many lead to other machines.
        problems: What is wrong, a sentence each.
    """

    pages: int
    links: int
    elsewhere: int
    problems: list[str]


def check(site: Path) -> Checked:
    """Check all pages of a site."""
    site = site.resolve()
    pages = {file: _seen(file) for file in sorted(site.rglob("*.html"))}
    problems: list[str] = []
    links = elsewhere = 0
    for file, page in pages.items():
        name = file.relative_to(site).as_posix()
        problems += [
            f"{name}: the image {each} has no words for those who cannot see it" for each in page.images_without_words
        ]
        for tag, target in page.links:
            parts = urlsplit(target)
            if parts.scheme in ("http", "https") or parts.netloc:
                elsewhere += 1
                if tag not in ("a", "form"):
                    problems.append(f"{name}: {target} is fetched from another machine")
            elif parts.scheme not in ("mailto", "data", "javascript"):
                links += 1
                problems += [f"{name}: {each}" for each in _wrong(site, file, target, pages)]
    return Checked(len(pages), links, elsewhere, problems)


def _seen(file: Path) -> _Seen:
    seen = _Seen()
    seen.feed(file.read_text(encoding="utf-8"))
    return seen


def _wrong(site: Path, file: Path, target: str, pages: dict[Path, _Seen]) -> list[str]:
    """Return what is wrong with a link within the site."""
    parts = urlsplit(target)
    path = unquote(parts.path)
    there = file if not path else (site / path.lstrip("/") if path.startswith("/") else file.parent / path).resolve()
    there = there / "index.html" if there.is_dir() else there
    if not there.is_relative_to(site):  # it may well be there on this machine, and nowhere else
        return [f"{target} leads out of the site"]
    if not there.exists():
        return [f"{target} leads nowhere"]
    if parts.fragment and there in pages and unquote(parts.fragment) not in pages[there].anchors:
        return [f"{target}: there is no such place in the page"]
    return []


def main(arguments: list[str]) -> int:
    """Check a site, and say what is wrong with it."""
    checked = check(Path(*arguments))
    for problem in checked.problems:
        print(problem, file=sys.stderr)
    followed = f"{checked.links} links within, {checked.elsewhere} to elsewhere"
    print(f"{checked.pages} pages, {followed}, {len(checked.problems)} wrong")
    return 1 if checked.problems or not checked.pages else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
