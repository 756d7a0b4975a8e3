"""A session as files: JSON lines, Markdown and a page of HTML."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from markdown_it import MarkdownIt

from everturn.conversations.export import Format, agent_files, file_name, render
from everturn.conversations.loading import StoredSession
from everturn.errors import Invalid
from everturn.transcripts.archive import SessionRef
from recorded import TAP_AGENT, answered, fence, said, tap, text, tool_result, tool_use

REF = SessionRef("acme/web#12", "-home-dev-tap", "5a1d0c1e")
HOSTILE = (
    "</script><script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "</pre></details></main><iframe src=//evil.example>",
    "[click](javascript:alert(1)) [data](data:text/html;base64,PHNjcmlwdD4=) [file](file:///etc/passwd)",
    "![spy](https://evil.example/pixel.png) <javascript:alert(1)>",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b31m \x08\x08 \u202egnp.exe",
    "{{ 7 * 7 }} {% include 'x' %} ' onmouseover='alert(1)",
    "```\n</textarea><svg onload=alert(1)>",
    "\ud800 unpaired",
)


def session(entries: list[Any], agents: dict[str, list[Any]] | None = None, ref: SessionRef = REF) -> StoredSession:
    return StoredSession(ref, entries, agents or {})


def exported(found: StoredSession, form: Format, *, agents: bool = False) -> str:
    return b"".join(render(found, form, agents=agents)).decode()


def hostile_session() -> StoredSession:
    """A hostile string in every place that text comes from."""
    entries: list[Any] = []
    for number, words in enumerate(HOSTILE):
        ids = [f"{number}-{step}" for step in range(4)]
        call = tool_use(ids[0], name=words, command=words, **{words: words})
        result = tool_result(ids[0], words, is_error=bool(number % 2))
        patch = {"structuredPatch": [{"lines": [words, "+" + words, "-" + words]}]}
        picture = {"type": "image", "title": words, "source": {"media_type": words, "data": words, "url": words}}
        beside = {"type": words, "filename": words}
        entries += [
            said(ids[0], entries[-1]["uuid"] if entries else None, [text(words), picture], timestamp=words),
            {"type": "attachment", "uuid": ids[1], "parentUuid": ids[0], "attachment": beside},
            {"type": "system", "uuid": ids[1] + "s", "parentUuid": ids[1], "subtype": words, "content": words},
            answered(ids[2], ids[1] + "s", text(words), {"type": "thinking", "thinking": words}, call),
            said(ids[3], ids[2], [result], toolUseResult=patch if number % 3 == 0 else {}),
        ]
        entries[-2]["message"]["model"] = words
    agent = [{"type": "agent_metadata", "description": HOSTILE[0], "toolUseId": "0-0"}, said("s", None, HOSTILE[1])]
    return session(entries, {"subagents/agent-1": agent}, SessionRef(HOSTILE[0], "p", HOSTILE[1]))


class Page(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in ("meta", "img", "br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def values(self, name: str) -> list[str]:
        return [value for _, each, value in self.attributes if each == name]


# --- HTML -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile_page() -> str:
    return exported(hostile_session(), Format.HTML, agents=True)


def test_hostile_text_becomes_no_tag_no_handler_and_no_address(hostile_page: str) -> None:
    page = Page(hostile_page)
    assert page.open == []
    assert not set(page.tags) & {"script", "iframe", "svg", "img", "object", "form", "link", "base", "textarea"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name in ("style", "srcdoc")]
    assert all(re.match(r"https://|#", value) for value in page.values("href"))
    assert page.values("src") == []
    assert page.values("rel") == ["noopener noreferrer nofollow"] * len(page.values("rel"))


def test_hostile_text_is_shown_as_it_is_but_for_what_controls_a_terminal(hostile_page: str) -> None:
    shown = html.unescape(hostile_page)
    for words in (*HOSTILE[:3], HOSTILE[6]):
        assert words in shown
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e\ud800-\udfff]", hostile_page)
    assert "red" in shown
    assert "[31m" not in shown
    assert "49" not in re.findall(r"(?<![\d:.-])49(?!\d)", shown)


def test_a_page_needs_nothing_but_itself_and_allows_nothing_else() -> None:
    shown = exported(session(*tap()), Format.HTML, agents=True)
    page = Page(shown)
    assert page.open == []
    style = shown.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    [policy] = [value for value in page.values("content") if "default-src" in value]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:;")
    assert "script" not in page.tags
    assert "url(" not in style
    assert "@import" not in style
    assert all(value.startswith("data:image/png;base64,") for value in page.values("src"))
    assert len(page.values("src")) == 2


def test_a_page_can_be_used_with_a_keyboard_and_a_screen_reader() -> None:
    page = Page(exported(session(*tap()), Format.HTML, agents=True))
    assert ("html", "lang", "en") in page.attributes
    assert {"header", "nav", "main", "article", "h1", "h2", "time"} <= set(page.tags)
    assert len(page.ids) == len(set(page.ids))
    anchors = [value[1:] for value in page.values("href") if value.startswith("#")]
    assert anchors[0] == "turns"
    assert set(anchors) <= set(page.ids)
    assert set(page.values("aria-labelledby")) <= set(page.ids)
    assert page.tags.count("img") == sum(1 for tag, name, value in page.attributes if (tag, name) == ("img", "alt"))
    assert page.tags.count("h1") == 1
    assert "summary" in page.tags


def test_a_page_is_light_or_dark_and_fits_a_phone() -> None:
    shown = exported(session(*tap()), Format.HTML)
    assert "prefers-color-scheme: dark" in shown
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in shown


def test_a_page_tells_the_conversation_with_failures_in_words() -> None:
    shown = html.unescape(exported(session(*tap()), Format.HTML))
    for words in (
        "Mend the leaking tap",
        "<strong>tap.py</strong>",
        "<em>failed</em>",
        "<em>stopped</em>",
        "Painted red.",
    ):
        assert words in shown
    assert "<ins>+    return turns * 2.5\n</ins>" in shown
    assert "<del>-    return turns * 3\n</del>" in shown
    assert "taken back" in shown


@pytest.mark.parametrize("form", [Format.HTML, Format.MARKDOWN])
def test_subagents_are_told_if_wanted(form: Format) -> None:
    found = session(*tap())
    assert "I'll count." in html.unescape(exported(found, form, agents=True))
    assert "I'll count." not in html.unescape(exported(found, form, agents=False))


@pytest.mark.parametrize("form", [Format.HTML, Format.MARKDOWN])
def test_the_transcript_of_a_subagent_that_nobody_called_is_told(form: Format) -> None:
    found = session([said("a", None, "Hi")], {"subagents/agent-9": [said("s", None, "Nobody's work")]})
    assert "Nobody's work" in html.unescape(exported(found, form, agents=True))


@pytest.mark.parametrize(
    ("media_type", "data", "shown"),
    [
        ("image/png", base64.b64encode(b"\x89PNG\r\n\x1a\nrest").decode(), True),
        ("image/gif", base64.b64encode(b"GIF89a").decode(), True),
        ("image/png", base64.b64encode(b"<svg onload=alert(1)>").decode(), False),
        ("image/svg+xml", base64.b64encode(b"<svg/>").decode(), False),
        ("text/html", base64.b64encode(b"<p>").decode(), False),
        ("image/png", 'iVBORw0KGgo" onerror="alert(1)', False),
        ("image/png", "", False),
    ],
)
def test_only_pictures_that_are_what_they_say_are_shown(media_type: str, data: str, shown: bool) -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}
    page = exported(session([said("a", None, [picture])]), Format.HTML)
    assert ("<img" in page) is shown
    assert shown or "[image" in page


# --- Markdown ---------------------------------------------------------------------------------------------------


def test_markdown_reads_as_a_document() -> None:
    shown = exported(session(*tap()), Format.MARKDOWN)
    assert shown.startswith(
        "# Mend the leaking tap in \\`tap.py\\`, please.\n\n| | |\n|---|---|\n| session | 5a1d0c1e |\n"
    )
    assert "\n## 4. Prompt, resumed\n" in shown
    assert "\n> Test it under pressure.\n" in shown
    assert "\n#### What I did\n" in shown
    assert "<details><summary><b>Bash</b> ✗ <code>python3 check.py</code></summary>\n\n```\ncommand: python3" in shown
    assert "```diff\n@@ -1,3 +1,3 @@\n" in shown
    assert shown.count("<details>") == shown.count("</details>")


def test_hostile_text_opens_no_tag_in_markdown() -> None:
    shown = exported(hostile_session(), Format.MARKDOWN, agents=True)
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["strikethrough", "table"]).parse(shown)
    every = [child for token in tokens for child in [token, *(token.children or ())]]
    tags = {tag for token in every if token.type.startswith("html") for tag in re.findall(r"<\w+", token.content)}
    assert tags == {"<details", "<summary", "<b", "<code"}
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202d\u202e]", shown)


def test_code_that_holds_fences_stays_in_its_fence() -> None:
    entries = [answered("a", None, tool_use("t")), said("b", "a", [tool_result("t", "```\ninner\n````\nend")])]
    assert "`````\n```\ninner\n````\nend\n`````\n" in exported(session(entries), Format.MARKDOWN)


# --- JSON lines -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recorded", [tap, fence])
def test_json_lines_are_the_entries_one_a_line(recorded: Any) -> None:
    entries, agents = recorded()
    lines = exported(session(entries, agents), Format.JSONL).split("\n")
    assert [json.loads(line) for line in lines[:-1]] == entries
    assert lines[-1] == ""


def test_subagents_files_are_named_as_the_agent_command_names_them() -> None:
    entries, agents = tap()
    files = {name: b"".join(pieces).decode() for name, pieces in agent_files(session(entries, agents))}
    assert list(files) == [f"5a1d0c1e/{TAP_AGENT}.jsonl", f"5a1d0c1e/{TAP_AGENT}.meta.json"]
    lines = [json.loads(line) for line in files[f"5a1d0c1e/{TAP_AGENT}.jsonl"].splitlines()]
    assert lines == [entry for entry in agents[TAP_AGENT] if entry["type"] != "agent_metadata"]
    told = json.loads(files[f"5a1d0c1e/{TAP_AGENT}.meta.json"])
    assert (told["finished"], told["toolUseId"]) == (True, "toolu_0006_0011_01")
    assert "type" not in told


@pytest.mark.parametrize("subpath", ["../../etc/x", "/etc/x", "a//b", "a/./b", "C:x", "a\\..\\b", ""])
def test_a_sub_transcript_whose_name_leads_out_of_the_folder_is_refused(subpath: str) -> None:
    with pytest.raises(Invalid, match="no name that a file can have"):
        list(agent_files(session([], {subpath: []})))


@pytest.mark.parametrize(("session_id", "name"), [("abc-1", "abc-1.html"), ("a/b", "a!2fb.html"), ("x", "x.html")])
def test_files_are_called_after_the_session(session_id: str, name: str) -> None:
    assert file_name(session([], ref=SessionRef("s", "p", session_id)), Format.HTML) == name
