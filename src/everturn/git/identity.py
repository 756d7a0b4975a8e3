"""Whose name stands in a commit: an author and a committer, given to git by its environment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from everturn.errors import Invalid

DEFAULT_NAME = "everturn"
# `.invalid` belongs to nobody (RFC 2606), so no mail goes astray and no forge takes it for somebody's account.
DEFAULT_DOMAIN = "agents.invalid"

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f<>\u2028\u2029\ud800-\udfff]")
_CRUD = " .,:;\"\\'"  # what git itself takes away at both ends
_HINT = 'write it as "Name <email>"'


@dataclass(frozen=True, slots=True)
class Identity:
    """A person or an agent, as a commit names them.

    Attributes:
        name: The name; any text of one line without angle brackets.
        email: The address; the same, and without spaces.

    Raises:
        Invalid: git would refuse one of them, or write it in another way that changes whose it is.
    """

    name: str
    email: str

    def __post_init__(self) -> None:
        for what, text in (("name", self.name), ("email", self.email)):
            if _FORBIDDEN.search(text):
                raise Invalid(f"the {what} {text!r} has characters that no commit can hold", hint=_HINT)
            if not text.strip(_CRUD):
                raise Invalid(f"the {what} {text!r} is empty to git", hint=_HINT)
        if " " in self.email:
            raise Invalid(f"the email {self.email!r} has a space in it", hint=_HINT)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `Name <email>`.

        Raises:
            Invalid: It is of another form, or no commit can hold it.
        """
        match = re.fullmatch(r" *([^<>]+?) *< *([^<>]+?) *> *", text)
        if match is None:
            raise Invalid(f"{text!r} is no identity", hint=_HINT)
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return f"{self.name} <{self.email}>"


def default_identity(agent: str | None) -> Identity:
    """Return the identity of an agent that was given none. An agent without a name is `everturn`."""
    name = _FORBIDDEN.sub("-", agent or "").strip(_CRUD + "-")
    local = re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip(".-")
    return Identity(name or DEFAULT_NAME, f"{local or DEFAULT_NAME}@{DEFAULT_DOMAIN}")


def environment(author: Identity, committer: Identity) -> dict[str, str]:
    """Return the variables by which git, and what it starts, knows who makes its commits.

    They go before everything that a configuration says.
    """
    return {
        "GIT_AUTHOR_NAME": author.name,
        "GIT_AUTHOR_EMAIL": author.email,
        "GIT_COMMITTER_NAME": committer.name,
        "GIT_COMMITTER_EMAIL": committer.email,
    }
