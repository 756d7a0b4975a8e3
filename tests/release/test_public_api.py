"""What users build on changes only when somebody means it to."""

from __future__ import annotations

from difflib import unified_diff

from release.api import API, lines


def test_the_public_names_and_signatures_are_those_that_are_listed() -> None:
    listed = API.read_text(encoding="utf-8").splitlines()
    changes = "\n".join(unified_diff(listed, lines(), "listed", "now", n=0, lineterm=""))
    assert not changes, (
        f"the public API has changed:\n{changes}\n"
        "If that is meant: make api, and tell users in CHANGELOG.md. What is gone or renamed needs a new major"
        " version, or, before 1.0, a new minor one (docs/releasing.md)."
    )
