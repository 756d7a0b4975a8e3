"""What MkDocs does not do by itself: `mkdocs.yml` names this file.

Pages link to what is beside them in the repository, so that links also work where the files are looked at. What they
link to outside `docs/` is put into the site below `repository/`: pages as pages, folders as lists, all else as it is.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = "docs"
OUTSIDE = "repository"
_FENCED = re.compile(r"(^ *(`{3,}).*?^ *\2[ ]*$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill folders of the navigation (`tutorials/`) with their pages."""
    config.nav = _filled(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what the pages, and the navigation, link to outside `docs/`."""
    waiting = [DOCS + "/" + file.src_uri for file in files.documentation_pages()]
    waiting += [uri.removeprefix(OUTSIDE + "/") for uri in _uris(config.nav) if uri.startswith(OUTSIDE + "/")]
    seen = set[str]()
    while waiting:
        path = waiting.pop()
        if path in seen or not (ROOT / path).exists():
            continue
        seen.add(path)
        if not _is_in_docs(path):
            files.append(_file(path, config))
        if path.endswith(".md") or (ROOT / path).is_dir():
            waiting += _targets(path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Let links lead to where their targets are in the site."""
    path = _path_of(page.file.src_uri)
    here = posixpath.dirname(page.file.src_uri)

    def moved(link: re.Match[str]) -> str:
        target = _resolved(path, link[1])
        return posixpath.relpath(_uri_of(target), here or ".") if (ROOT / target).exists() else link[1]

    pieces = _FENCED.split(markdown)
    # Of three pieces the first one is prose; then come a block and its ticks.
    return "".join(
        _LINK.sub(moved, piece) if at % 3 == 0 else piece for at, piece in enumerate(pieces) if at % 3 != 2
    )


def _filled(nav: Any) -> Any:
    if isinstance(nav, dict):
        return {title: _filled(item) for title, item in nav.items()}
    if not isinstance(nav, list):
        return nav
    found: list[Any] = []
    for item in nav:
        if isinstance(item, str) and item.endswith("/"):
            folder = ROOT / DOCS / item
            found += [f"{item}{file.name}" for file in sorted(folder.glob("*.md")) if file.name != "README.md"]
        else:
            found.append(_filled(item))
    return found


def _uris(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for item in nav.values() if isinstance(nav, dict) else nav or []:
            yield from _uris(item)


def _targets(path: str) -> Iterator[str]:
    """Yield what a page or a folder of the repository leads to."""
    if (ROOT / path).is_dir():
        yield from (f"{path}/{name}" for name in _listed(path))
        return
    pieces = _FENCED.split((ROOT / path).read_text(encoding="utf-8"))
    for prose in pieces[::3]:
        yield from (_resolved(path, link[1]) for link in _LINK.finditer(prose))


def _listed(folder: str) -> list[str]:
    files = (
        file for file in sorted((ROOT / folder).rglob("*")) if file.is_file() and "__pycache__" not in file.parts
    )
    return [file.relative_to(ROOT / folder).as_posix() for file in files]


def _file(path: str, config: MkDocsConfig) -> File:
    if (ROOT / path).is_dir():
        links = "\n".join(f"- [{name}]({name})" for name in _listed(path))
        return File.generated(config, _uri_of(path), content=f"# {path}\n\n{links}\n")
    return File.generated(config, _uri_of(path), abs_src_path=str(ROOT / path))


def _resolved(path: str, link: str) -> str:
    folder = path if (ROOT / path).is_dir() else posixpath.dirname(path)
    return posixpath.normpath(posixpath.join(folder, link))


def _uri_of(path: str) -> str:
    """Return where something of the repository is in the site."""
    if (ROOT / path).is_dir():
        path = f"{path}/README.md" if (ROOT / path / "README.md").exists() else f"{path}/index.md"
    return path.removeprefix(DOCS + "/") if _is_in_docs(path) else f"{OUTSIDE}/{path}"


def _path_of(uri: str) -> str:
    """Return where something of the site comes from."""
    path = uri.removeprefix(OUTSIDE + "/") if uri.startswith(OUTSIDE + "/") else f"{DOCS}/{uri}"
    return path if (ROOT / path).exists() else posixpath.dirname(path)


def _is_in_docs(path: str) -> bool:
    return path == DOCS or path.startswith(DOCS + "/")
