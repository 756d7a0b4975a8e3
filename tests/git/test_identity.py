"""Commits are made in the name that was given, and in no other."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everturn.errors import Invalid
from everturn.git.identity import Identity, default_identity, environment

ADA = Identity("Ada Lovelace", "ada@example.org")
FIXER = Identity("fixer", "fixer@agents.invalid")


def commit(folder: Path, author: Identity, committer: Identity, *options: str) -> list[str]:
    """Commit in a fresh repository whose configuration names somebody else; return whose commit it is."""
    variables = {"PATH": os.environ["PATH"], "HOME": str(folder), **environment(author, committer)}

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=folder, env=variables, capture_output=True, check=True)
        return done.stdout.decode()

    git("init", "--quiet")
    for file in ("--local", "--global"):
        for role in ("user", "author", "committer"):
            git("config", file, f"{role}.name", "Mallory")
            git("config", file, f"{role}.email", "mallory@example.org")
    git("commit", "--quiet", "--allow-empty", "-m", "One", *options)
    return git("log", "--format=%an%n%ae%n%cn%n%ce").splitlines()


def test_author_and_committer_go_before_what_a_repository_or_a_home_folder_says(tmp_path: Path) -> None:
    assert commit(tmp_path, ADA, FIXER) == ["Ada Lovelace", "ada@example.org", "fixer", "fixer@agents.invalid"]


def test_an_author_that_is_named_in_the_command_counts_and_the_committer_stays(tmp_path: Path) -> None:
    assert commit(tmp_path, ADA, FIXER, "--author=Eve <eve@example.org>") == [
        "Eve",
        "eve@example.org",
        "fixer",
        "fixer@agents.invalid",
    ]


@pytest.mark.parametrize("name", ["Jürgen Größe", "名前", "O'Neil", "a;rm -rf", "$(id)", "-x", "John Smith Jr."])
def test_unusual_names_are_written_as_they_are(tmp_path: Path, name: str) -> None:
    assert commit(tmp_path, Identity(name, "a@example.org"), FIXER)[0] == name.removesuffix(".")


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("Ada Lovelace <ada@example.org>", ADA),
        ("  Ada Lovelace<ada@example.org> ", ADA),
        ("fixer < fixer@agents.invalid >", FIXER),
    ],
)
def test_an_identity_is_read(text: str, identity: Identity) -> None:
    assert Identity.parse(text) == identity
    assert Identity.parse(str(identity)) == identity


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Ada",
        "ada@example.org",
        "<ada@example.org>",
        "Ada <>",
        "Ada < >",
        " <a@b>",
        "Ada <a@b> x",
        "Ada <<a@b>>",
        "Ada <a@b> <c@d>",
        "Ada\n <a@b>",
        "Ada <a@b>\ncommitter Eve",
        "A\x00da <a@b>",
        "Ada <a@b\r>",
        "... <a@b>",
        "Ada <a b@c>",
        "\ud800 <a@b>",
    ],
)
def test_what_could_be_taken_for_somebody_else_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        Identity.parse(text)
    assert caught.value.hint == 'write it as "Name <email>"'


@pytest.mark.parametrize(
    ("agent", "name", "email"),
    [
        (None, "everturn", "everturn@agents.invalid"),
        ("", "everturn", "everturn@agents.invalid"),
        ("fixer", "fixer", "fixer@agents.invalid"),
        ("Bug Fixer", "Bug Fixer", "bug-fixer@agents.invalid"),
        ("<>\n", "everturn", "everturn@agents.invalid"),
        ("a\nb <c>", "a-b -c", "a-b-c@agents.invalid"),
        ("名前", "名前", "everturn@agents.invalid"),
    ],
)
def test_an_agent_that_was_given_no_identity_has_one_by_its_name(agent: str | None, name: str, email: str) -> None:
    assert default_identity(agent) == Identity(name, email)


@given(st.text())
def test_every_agent_has_an_identity(agent: str) -> None:
    identity = default_identity(agent)
    assert Identity.parse(str(identity)) == identity
