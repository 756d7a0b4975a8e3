"""Who gets which credentials, and when a source is asked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everturn.clock import ManualClock
from everturn.errors import Denied, Invalid, NotFound, Unavailable
from everturn.git.credentials import (
    EXPIRY_MARGIN_S,
    KEPT_URLS,
    Credential,
    Credentials,
    from_env,
    from_file,
    under_name,
)
from git.minting import Minting

FORGE = "https://git.example"
SECRET = "s3cr3t-t0ken"


def table(*urls: str) -> Credentials:
    """Return credentials in which each URL has its own name for a token."""
    return Credentials({url: lambda _, url=url: f"token of {url}" for url in urls}, ManualClock())  # type: ignore[misc]


def who(credentials: Credentials, url: str) -> str | None:
    found = credentials.ask(url)
    return None if found is None else found.password.removeprefix("token of ")


# --- the table


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example/team",
        "https://git.example/team/",
        "https://git.example:443/team/shop.git",
        "https://GIT.example/team/shop.git/info/lfs",
        "HTTPS://git.example/team/a%20b",
        "https://git.example/t%65am",
    ],
)
def test_what_lies_below_a_url_is_answered(url: str) -> None:
    assert who(table(f"{FORGE}/team"), url) == f"{FORGE}/team"


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example",
        "https://git.example/",
        "https://git.example/teammates",
        "https://git.example/Team",
        "https://git.example//team",
        "https://git.example/./team",
        "https://git.example/team/../other",
        "https://git.example/team/%2e%2e/other",
        "https://git.example/team%2f..%2fother",
        "https://git.example/team/%252e%252e/other",
        "https://git.example/team/%ff",
        "https://git.example/team\\..\\other",
        "https://git.example/team/shop?x",
        "https://git.example/team/shop#x",
        "https://git.example/team/shop\n",
        "http://git.example/team",
        "ssh://git.example/team",
        "ftp://git.example/team",
        "https://git.example:8443/team",
        "https://git.example.:443/team",
        "https://git.example.evil.example/team",
        "https://evil.example/team",
        "https://evilgit.example/team",
        "https://git.example@evil.example/team",
        "https://git.example%2f@evil.example/team",
        "https://user:pass@git.example/team",
        "https://git%2eexample/team",
        "https://git.example\N{KELVIN SIGN}/team",
        "http\N{LATIN SMALL LETTER LONG S}://git.example/team",
        "https://g\N{LATIN SMALL LETTER DOTLESS I}t.example/team",
        "https://git.example\r\n/team",
        "https://git.example\\@evil.example/team",
        "https:///git.example/team",
        "https://",
        "//git.example/team",
        "git.example/team",
        "",
    ],
)
def test_what_is_not_clearly_the_same_place_is_not(url: str) -> None:
    credentials = table(f"{FORGE}/team")
    assert credentials.ask(url) is None
    assert not credentials.covers(url)
    credentials.forget(url)


def test_the_longest_path_counts() -> None:
    credentials = table(FORGE, f"{FORGE}/team/shop.git", f"{FORGE}/team", "https://other.example")
    assert who(credentials, f"{FORGE}/team/shop.git") == f"{FORGE}/team/shop.git"
    assert who(credentials, f"{FORGE}/team/shop") == f"{FORGE}/team"
    assert who(credentials, f"{FORGE}/other") == FORGE
    assert who(credentials, "https://other.example/team") == "https://other.example"


def test_the_urls_are_in_one_form() -> None:
    assert set(table("https://GIT.example:443/", "https://[::1]:8443/a%20b/", "http://127.0.0.1:3000").urls) == {
        "https://git.example",
        "https://[::1]:8443/a%20b",
        "http://127.0.0.1:3000",
    }


@pytest.mark.parametrize("url", ["http://localhost:3000", "http://127.0.0.1", "http://127.1.2.3:1", "http://[::1]:1"])
def test_plain_http_is_for_loopback(url: str) -> None:
    assert who(table(url), f"{url}/x") == url


@pytest.mark.parametrize(
    "url",
    [
        "http://git.example",
        "http://127.0.0.1.evil.example",
        "http://10.0.0.1",
        "git.example",
        "ssh://git.example",
        "https://user@git.example",
        "https://user:hunter2@git.example",
        "https://user:hunter2/hunter2@git.example",
        "https://git.example/team?private_token=hunter2",
        "https://git.example/%ff",
        "https://git.example/a/../b",
        "https://git.example?x",
        "https://*.example",
        "https://git.example/a\nb",
        "https://größe.example",
    ],
)
def test_a_table_that_is_not_clear_is_refused_and_shows_no_password(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        table(url)
    assert "hunter2" not in str(caught.value)


def test_a_url_may_not_be_there_twice() -> None:
    with pytest.raises(Invalid, match="two sources"):
        table("https://git.example/", "https://GIT.example:443")


@given(st.text())
def test_any_text_is_answered_only_below_its_url(url: str) -> None:
    found = who(table(f"{FORGE}/team"), url)
    assert found is None or url.lower().startswith("https://git.example")


# --- sources


def test_a_source_is_asked_at_each_use_for_the_url_that_is_meant() -> None:
    asked: list[str] = []
    tokens = iter(["one", "two"])

    def source(url: str) -> str:
        asked.append(url)
        return next(tokens)

    credentials = Credentials({FORGE: source}, ManualClock())
    assert [credentials.ask("https://GIT.example:443/a%20b/"), credentials.ask(FORGE)] == [
        Credential("x-access-token", "one"),
        Credential("x-access-token", "two"),
    ]
    assert asked == ["https://git.example/a%20b", "https://git.example"]


def test_what_says_when_it_ends_is_kept_until_shortly_before() -> None:
    clock = ManualClock()
    mint = Minting(clock)
    credentials = Credentials({FORGE: mint}, clock)
    seen = []
    for pause_s in (0, 3600 - EXPIRY_MARGIN_S - 1, 2, 3600):
        clock.advance(pause_s)
        seen.append(credentials.ask(FORGE))
    assert [each.password for each in seen if each] == ["token 1", "token 1", "token 2", "token 3"]


def test_what_still_lasts_is_used_when_there_is_nothing_new() -> None:
    clock = ManualClock()
    mint = Minting(clock)
    credentials = Credentials({FORGE: mint}, clock)
    credentials.ask(FORGE)
    mint.broken = True
    clock.advance(3600 - EXPIRY_MARGIN_S + 1)
    assert who(credentials, FORGE) == "token 1"
    clock.advance(EXPIRY_MARGIN_S)
    with pytest.raises(Unavailable, match="no more tokens"):
        credentials.ask(FORGE)


def test_what_a_host_has_refused_is_asked_for_again_and_what_came_since_is_kept() -> None:
    clock = ManualClock()
    credentials = Credentials({FORGE: Minting(clock)}, clock)
    assert who(credentials, FORGE) == "token 1"
    credentials.forget(FORGE, "token 1")
    assert who(credentials, FORGE) == "token 2"
    credentials.forget(FORGE, "token 1")
    assert who(credentials, FORGE) == "token 2"
    credentials.forget(FORGE)
    assert who(credentials, FORGE) == "token 3"


def test_an_agent_that_asks_for_many_paths_fills_no_memory() -> None:
    clock = ManualClock()
    mint = Minting(clock)
    credentials = Credentials({FORGE: mint}, clock)
    for number in range(KEPT_URLS + 2):
        credentials.ask(f"{FORGE}/{number}")
    assert len(credentials._kept) == KEPT_URLS
    assert who(credentials, f"{FORGE}/{KEPT_URLS + 1}") == f"token {KEPT_URLS + 2}"


def test_many_who_ask_at_once_get_one_token() -> None:
    clock = ManualClock()
    mint = Minting(clock)
    credentials = Credentials({FORGE: mint}, clock)
    with ThreadPoolExecutor(16) as threads:
        found = set(threads.map(lambda _: who(credentials, FORGE), range(64)))
    assert (found, mint.count) == ({"token 1"}, 1)


def test_an_error_of_a_source_is_told_without_its_text() -> None:
    def source(url: str) -> str:
        raise RuntimeError(f"GET https://user:{SECRET}@tokens.example failed")

    with pytest.raises(Unavailable, match="failed with RuntimeError") as caught:
        Credentials({FORGE: source}, ManualClock()).ask(FORGE)
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("wrong", ["", "a\nusername=b", "a\r", "a\0", b"token", 7, ("a", "b")])
def test_what_git_could_not_be_told_is_refused(wrong: Any) -> None:
    with pytest.raises(Invalid):
        Credentials({FORGE: lambda _: wrong}, ManualClock()).ask(FORGE)


def test_a_source_may_have_nothing() -> None:
    assert Credentials({FORGE: lambda _: None}, ManualClock()).ask(FORGE) is None


def test_a_token_in_the_environment_is_read_at_each_use() -> None:
    variables: dict[str, str] = {}
    source = from_env("FORGE_TOKEN", variables.get)
    with pytest.raises(Denied, match="FORGE_TOKEN"):
        source(FORGE)
    variables["FORGE_TOKEN"] = f" {SECRET}\n"
    assert source(FORGE) == SECRET


def test_a_token_may_go_with_another_name_and_a_credential_has_its_own() -> None:
    given = Credential("own", "two")
    assert under_name("bot", lambda _: "one")(FORGE) == Credential("bot", "one")
    assert under_name("bot", lambda _: given)(FORGE) == given
    assert under_name("bot", lambda _: None)(FORGE) is None


def test_a_token_in_a_file_is_read_at_each_use(tmp_path: Path) -> None:
    source = from_file(tmp_path / "token")
    with pytest.raises(NotFound, match="token"):
        source(FORGE)
    for data in (b"", b" \n", b"\xff", b"x" * 70_000):
        (tmp_path / "token").write_bytes(data)
        with pytest.raises(Denied):
            source(FORGE)
    for token in ("one", "two"):
        (tmp_path / "token").write_text(f"{token}\n")
        assert source(FORGE) == token
    with pytest.raises(Denied):
        from_file(tmp_path)(FORGE)


def test_a_password_is_in_no_repr() -> None:
    credential = Credential("bot", SECRET, 1.0)
    credentials = Credentials({FORGE: lambda _: credential}, ManualClock())
    assert SECRET not in f"{credential!r} {credential} {credentials!r} {credentials.ask(FORGE)}"
