"""What GitHub says in its webhooks, and Gitea and Forgejo after it: the same events, in nearly the same words."""

from __future__ import annotations

from everturn.errors import Invalid
from everturn.forges.base import Delivery, Happening, Headers
from everturn.forges.payloads import (
    FORM,
    JSON,
    Fields,
    content_type_of,
    delivery_id_of,
    form_payload,
    invalid,
    unknown_event,
)
from everturn.model import ForgeName

HEADS = "refs/heads/"

_CLOSED = "closed"
# What a branch that was made has beside one that was deleted: at GitHub, at the others. The name of the event is not
# signed, so whoever sends a body once more could call it by the other one's.
_CREATED = ("master_branch", "sha")
_URLS = ("clone_url", "ssh_url", "git_url", "html_url", "svn_url")  # GitHub's url may be that of its API


class Dialect:
    """Reads webhooks of GitHub's kind.

    Attributes:
        name: Which forge it is.
        title: What people call it.
        prefix: What its own headers begin with, in small letters.
        others: The events that it has and that end no work.
        pull_refs: Under which refs it keeps a pull request, with `{number}` in them.
        signed_by: See `Forge`. So for the next.
        content_types: How it sends webhooks.
    """

    name: ForgeName
    title: str
    prefix: str
    others: frozenset[str]
    pull_refs: tuple[str, ...]
    signed_by: tuple[str, ...]
    content_types: tuple[str, ...] = (JSON, FORM)

    def __init__(self) -> None:
        self._readers = {
            "pull_request": self._pull_request,
            "issues": self._issue,
            "delete": self._delete,
            "push": self._push,
        }

    def read(self, headers: Headers, body: bytes) -> Delivery:
        """Return what a webhook says; see `Forge.read`."""
        delivery_id = delivery_id_of(headers, [f"{self.prefix}-delivery"])
        event = self._event(headers)
        fields = Fields.parse(json_of(headers, body))
        reader = self._readers.get(event)
        if reader is None:
            found: Happening | str = f"{event} ends no work"
        else:
            found = reader(fields)
        if isinstance(found, str):
            return Delivery(self.name, delivery_id, event, ignored=found)
        return Delivery(self.name, delivery_id, event, found)

    def _event(self, headers: Headers) -> str:
        # Gitea leaves the event of some types empty, as of a package, and says the type in another header.
        event = headers.get(f"{self.prefix}-event") or headers.get(f"{self.prefix}-event-type", "")
        if event not in self._readers and event not in self.others:
            unknown_event(self.title, event)
        return event

    def _pull_request(self, fields: Fields) -> Happening | str:
        action = fields.word("action")
        if action != _CLOSED:
            return f"the action {action} does not close a pull request"
        change = fields.object("pull_request")
        number, head = change.number("number"), change.object("head")
        repo = fields.object("repository").urls(_URLS)
        source = head.object_or_null("repo")
        branch = branch_that_ends(_branch_of(head, number), source)
        return Happening(
            "change_closed",
            repo,
            number,
            branch=branch,
            branch_repo=() if source is None or branch is None else source.urls(_URLS),
            refs=tuple(ref.format(number=number) for ref in self.pull_refs),
        )

    def _issue(self, fields: Fields) -> Happening | str:
        action = fields.word("action")
        if action != _CLOSED:
            return f"the action {action} does not close an issue"
        issue = fields.object("issue")
        if issue.has("pull_request"):
            return "the issue is a pull request, which has an event of its own"
        return Happening("issue_closed", fields.object("repository").urls(_URLS), issue.number("number"))

    def _delete(self, fields: Fields) -> Happening | str:
        if any(fields.has(name) for name in _CREATED):
            raise invalid("it tells of a branch or a tag that was made, whatever its event is called")
        if (kind := fields.word("ref_type")) != "branch":
            return f"no branch was deleted but a {kind}"
        return branch_deleted(fields.object("repository").urls(_URLS), fields.branch("ref"))

    def _push(self, fields: Fields) -> Happening | str:
        return pushed_deletion(fields) or branch_deleted(
            fields.object("repository").urls(_URLS), pushed_branch(fields)
        )


def json_of(headers: Headers, body: bytes) -> bytes:
    """Return the JSON of a webhook that may come as a form.

    Raises:
        Invalid: It is of another content type, or the form is not one that forges send.
    """
    kind = content_type_of(headers)
    if kind == JSON:
        return body
    if kind != FORM:
        raise wrong_content_type(f"{JSON} or {FORM}")
    payload = form_payload(body)
    if payload is None:
        raise invalid("the webhook's form does not have one field, payload, and no other")
    return payload


def wrong_content_type(wanted: str) -> Invalid:
    """Return the error for a webhook of another content type than the `wanted` ones."""
    return invalid(f"the webhook's content type is not {wanted}")


def pushed_deletion(fields: Fields) -> str:
    """Return why a push ends no work; empty if it deleted a branch."""
    after, ref = fields.commit("after"), fields.text("ref")
    if not ref.startswith("refs/"):
        raise invalid("ref is no ref of git")
    if after.strip("0"):
        return "commits were pushed, nothing was deleted"
    return "" if ref.startswith(HEADS) else "no branch was deleted but another ref"


def pushed_branch(fields: Fields) -> str:
    """Return the branch that a push was about."""
    return fields.as_branch("ref", fields.text("ref").removeprefix(HEADS))


def branch_that_ends(branch: str | None, repo: Fields | None) -> str | None:
    """Return the branch that a change came from, if it may end with it: the default branch of its repository goes on.

    Where anybody may open changes, anybody could end the work on that branch otherwise, by one that they close again.
    """
    goes_on = branch is not None and repo is not None and repo.says("default_branch", branch)
    return None if goes_on else branch


def branch_deleted(repo: tuple[str, ...], branch: str) -> Happening:
    """Return what it means that a branch is gone."""
    return Happening("branch_deleted", repo, branch=branch, branch_repo=repo)


def _branch_of(head: Fields, number: str) -> str | None:
    """Return the branch that a pull request came from; `None` if it came from none.

    Gitea names the ref of the pull request where the branch is gone, and keeps the branch's name as the label. The
    label is empty if there never was a branch, as somebody pushed to `refs/for/`.
    """
    if head.text("ref") != f"refs/pull/{number}/head":
        return head.branch("ref")
    return head.branch("label") if head.text("label") else None
