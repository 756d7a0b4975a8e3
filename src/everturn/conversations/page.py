"""A conversation as one page of HTML that needs nothing else: no script, no style sheet, no picture from elsewhere.

Everything goes through the template, which escapes it; Markdown is the only thing that is rendered, with HTML
switched off, and its links lead nowhere but to the web. A policy in the page forbids what should not be there anyway.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup

from everturn.conversations import wording
from everturn.conversations.conversation import Conversation, Media
from everturn.transcripts.archive import SessionRef

LARGEST_IMAGE_BYTES = 8_000_000
MOST_CELLS = 10_000  # which take a second; a thousand columns and a thousand rows of nothing can be asked for in 3 kB
_STYLES = ("tokens.css", "conversation.css", "turns.css")
_WEB = re.compile(r"(https?://|mailto:)[^\s]", re.IGNORECASE)
_IMAGES = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff",
    "image/gif": b"GIF8",
    "image/webp": b"RIFF",
}
_BLANK_LINES = re.compile(r"\n[ \t]*\n")
_LINES = ("paragraph_open", "heading_open", "th_open", "td_open")
_REL = "noopener noreferrer nofollow"


def to_html(found: Conversation, ref: SessionRef, *, agents: bool) -> Iterator[str]:
    """Return a conversation as a page of HTML, in pieces.

    Args:
        found: The conversation.
        ref: The session it is.
        agents: Whether to show what subagents said and did.
    """
    yield from _template().generate(found=found, ref=ref, words=wording, agents=agents, **_style())


def markdown(text: str) -> Markup:
    """Return Markdown as HTML that is safe to show. Tables that would be huge are shown as they were written."""
    text = wording.clean(text)
    return Markup(_parser(tables=_cells(text) <= MOST_CELLS).render(text))  # noqa: S704  # HTML is off, links are checked


def _cells(text: str) -> int:
    """Return how many cells the tables of a text have at most: short rows are filled up to the longest one."""
    blocks = (block.split("\n") for block in _BLANK_LINES.split(text) if "|" in block)
    return sum(len(lines) * (max(line.count("|") for line in lines) + 1) for lines in blocks)


def image(media: Media) -> str | None:
    """Return an image as an address that holds it, or `None` if it is not one that we know, or is broken."""
    start = _IMAGES.get(media.media_type)
    if media.what != "image" or start is None or not media.data or len(media.data) > LARGEST_IMAGE_BYTES * 4 // 3:
        return None
    try:
        data = base64.b64decode(media.data, validate=True)
    except (binascii.Error, ValueError):
        return None
    return f"data:{media.media_type};base64,{media.data}" if data.startswith(start) else None


@cache
def _style() -> dict[str, object]:
    """Return the style sheet, and its digest: the page's policy allows that one alone."""
    folder = files("everturn.conversations") / "templates"
    text = "".join((folder / name).read_text(encoding="utf-8") for name in _STYLES)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"style": Markup(text), "style_digest": digest}  # noqa: S704  # a file of our own


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("everturn.conversations"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: wording.clean(value) if type(value) is str else value,
    )
    environment.filters.update(markdown=markdown, image=image)
    environment.tests.update(failed=wording.failed)
    return environment.get_template("conversation.html")


@cache
def _parser(*, tables: bool) -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", *(["table"] if tables else [])])
    parser.validateLink = lambda url: bool(_WEB.match(url))  # type: ignore[method-assign]
    parser.core.ruler.push("everturn", lambda state: _tame(state.tokens))
    parser.add_render_rule("image", _image_as_link)
    return parser


def _tame(tokens: Sequence[Token]) -> None:
    """Lower headings below those of the page, mark links as not ours, and align cells without a style.

    Each paragraph has the direction of its own script.
    """
    for token in tokens:
        if token.type in _LINES:
            token.attrSet("dir", "auto")
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 2)}"
        elif token.type == "link_open":
            token.attrSet("rel", _REL)
        elif "style" in token.attrs:
            token.attrSet("class", str(token.attrs.pop("style")).replace("text-align:", "align-"))
        _tame(token.children or ())


def _image_as_link(
    _renderer: RendererHTML, tokens: Sequence[Token], index: int, _options: OptionsDict, _env: EnvType
) -> str:
    """Show a picture from elsewhere as a link: looking at a page must not tell anybody that it is looked at."""
    token = tokens[index]
    address, words = escapeHtml(str(token.attrs.get("src", ""))), escapeHtml(token.content or "image")
    return f'<a rel="{_REL}" href="{address}">[{words}]</a>'
