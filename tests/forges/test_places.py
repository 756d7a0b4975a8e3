"""One repository has one name, however its URL is spelled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everturn.forges import place_of, same_repository
from everturn.model import repository_name

SPELLINGS = [
    "https://git.example/moss/harbor",
    "https://git.example/moss/harbor.git",
    "https://git.example/moss/harbor/",
    "https://git.example/moss/harbor.git/",
    "https://Git.Example/Moss/Harbor.git",
    "https://git.example:443/moss/harbor",
    "https://moss@git.example/moss/harbor",
    "https://git.example./moss/harbor",
    "http://git.example/moss/harbor.git",
    "http://git.example:80/moss/harbor.git",
    "ssh://git@git.example/moss/harbor.git",
    "ssh://git@git.example:22/moss/harbor",
    "git+ssh://git@git.example/moss/harbor",
    "git://git.example/moss/harbor.git",
    "git://git.example:9418/moss/harbor.git",
    "git@git.example:moss/harbor.git",
    "git@git.example:/moss/harbor",
    "git.example:moss/harbor.git",
    "GIT@GIT.EXAMPLE:MOSS/HARBOR.git",
    "HTTPS://git.example/moss/harbor",
]
OTHERS = [
    "https://git.example/moss/harbour",
    "https://git.example/fern/harbor",
    "https://other.example/moss/harbor",
    "https://git.example:8443/moss/harbor",
    "ssh://git@git.example:2222/moss/harbor",
    "https://git.example/group/moss/harbor",
    "/moss/harbor",
]
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=12)
PLACES = st.tuples(NAMES.map(lambda name: f"{name}.example"), NAMES, NAMES)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_a_repository_is_one_place(spelling: str) -> None:
    assert place_of(spelling) == "git.example/moss/harbor"


@pytest.mark.parametrize("other", OTHERS)
def test_another_repository_is_another_place(other: str) -> None:
    assert not any(same_repository(other, spelling) for spelling in SPELLINGS)


@pytest.mark.parametrize(
    "text",
    [
        "/srv/git/harbor.git",
        "./harbor",
        "harbor",
        "C:\\git\\harbor",
        "c:/git/harbor",
        "file:///srv/harbor.git/",
        "./a:b",
        "s3://bucket/harbor",
        "https://git.example/",
        "ext::sh -c true",
        "",
        "host:",
        "https:///x",
        "a/b@c:d",
    ],
)
def test_a_path_and_whatever_else_names_no_host_stays_as_it_is(text: str) -> None:
    assert place_of(text) == repository_name(text)


def test_addresses_and_ports_that_no_host_has_are_no_reason_to_fail() -> None:
    for text in ("http://[", "https://host:port/x", "ssh://git@host:99999/x", "http://[::1/x", "https://a\x00b/c d"):
        assert same_repository(text, text)
    assert same_repository("ssh://git@[::1]:22/moss/harbor", "git@[::1]:moss/harbor.git")


@given(PLACES, st.booleans(), st.booleans())
def test_ways_to_reach_a_repository_come_to_the_same(place: tuple[str, str, str], git: bool, loud: bool) -> None:
    host, owner, name = place
    path = f"{owner}/{name}{'.git' if git else ''}"
    ways = [f"https://{host}/{path}", f"ssh://git@{host}/{path}", f"git@{host}:{path}", f"git://{host}:9418/{path}/"]
    ways += [each.upper().removesuffix(".GIT") for each in ways[:1] if loud]
    assert {place_of(each) for each in ways} == {f"{host}/{owner}/{name}"}


@given(PLACES, PLACES)
def test_two_repositories_are_the_same_only_if_they_are(one: tuple[str, str, str], two: tuple[str, str, str]) -> None:
    a, b = ("https://{}/{}/{}".format(*one), "git@{}:{}/{}.git".format(*two))
    assert same_repository(a, b) == same_repository(b, a) == (one == two)


@given(st.text() | st.from_regex(r"\A[a-z+]{0,6}(://|@|:)[\[\]a-z0-9:@/.%\\]{0,30}\Z"))
def test_any_text_has_a_place(text: str) -> None:
    assert same_repository(text, text)
    assert isinstance(place_of(text), str)


def test_text_that_is_no_unicode_has_a_place() -> None:
    assert same_repository("git@host:\ud800", "git@host:\ud800")
