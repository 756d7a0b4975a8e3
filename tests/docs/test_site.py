"""The site builds without a warning, no link in it is broken, and its pages say what the files say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import markdown
import pytest
from handbook.links import check
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
EXTENSIONS = ["attr_list", "md_in_html", "tables", "toc", "pymdownx.highlight", "pymdownx.superfences"]
COUNTED = re.compile(r"<(li|ol|ul|table|tr|pre|blockquote|h[1-6])\b")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "NO_MKDOCS_2_WARNING": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_link_anchor_and_image_leads_somewhere_and_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    checked = check(site)
    assert checked.problems == []
    assert checked.pages > len(PAGES)
    assert checked.links > 1000


@pytest.mark.slow
def test_comments_for_the_tests_are_not_shown(site: Path) -> None:
    for file in site.rglob("*.html"):
        shown = re.sub(r"<!--.*?-->", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        if file.name != "CONTRIBUTING.html":
            assert "snippet:" not in shown, file.name


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_has_the_same_lists_tables_and_blocks_on_the_site_as_elsewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    elsewhere = Counter(COUNTED.findall(MarkdownIt("commonmark").enable("table").render(text)))
    assert Counter(COUNTED.findall(markdown.markdown(text, extensions=EXTENSIONS))) == elsewhere


BROKEN = {
    '<a href="there.html#no-such-place">a</a>': "there.html#no-such-place: there is no such place in the page",
    '<a href="gone.html">a</a>': "gone.html leads nowhere",
    '<a href="#gone">a</a>': "#gone: there is no such place in the page",
    '<img src="gone.svg" alt="a">': "gone.svg leads nowhere",
    '<a href="../site.html">a</a>': "../site.html leads out of the site",
    '<img src="there.svg">': "the image there.svg has no words for those who cannot see it",
    '<script src="https://elsewhere.example/a.js"></script>': (
        "https://elsewhere.example/a.js is fetched from another machine"
    ),
}


@pytest.mark.parametrize("html", BROKEN)
def test_what_is_broken_is_named(tmp_path: Path, html: str) -> None:
    site = tmp_path / "site"
    site.mkdir()
    for file in (site / "there.html", tmp_path / "site.html"):
        file.write_text('<h1 id="place">There</h1>', encoding="utf-8")
    (site / "there.svg").touch()
    (site / "page.html").write_text(html, encoding="utf-8")
    assert check(site).problems == [f"page.html: {BROKEN[html]}"]


def test_what_leads_somewhere_is_no_problem(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "index.html").write_text('<h1 id="place">There</h1>', encoding="utf-8")
    html = '<a href="folder/#place">a</a><a href="/folder">b</a><a href="mailto:a@b.example">c</a><a href="https://e.example">d</a>'
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    checked = check(tmp_path)
    assert (checked.pages, checked.links, checked.elsewhere, checked.problems) == (2, 2, 1, [])
