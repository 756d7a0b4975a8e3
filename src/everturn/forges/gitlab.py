"""Webhooks of GitLab.

What they look like: https://docs.gitlab.com/user/project/integrations/webhook_events/; their headers:
https://docs.gitlab.com/user/project/integrations/webhooks/; how they are signed since there are signing tokens:
https://gitlab.com/gitlab-org/gitlab/-/merge_requests/230944, which follows Standard Webhooks.
"""

from __future__ import annotations

from collections.abc import Sequence

from everturn.forges import events
from everturn.forges.base import Delivery, Happening, Headers
from everturn.forges.dialect import (
    branch_deleted,
    branch_that_ends,
    pushed_branch,
    pushed_deletion,
    wrong_content_type,
)
from everturn.forges.payloads import JSON, Fields, content_type_of, delivery_id_of, invalid, unknown_event
from everturn.forges.signatures import check_standard, check_token
from everturn.model import ForgeName

_EVENT = "x-gitlab-event"
_TOKEN = "x-gitlab-token"  # noqa: S105 - the name of a header
_SIGNED = ("webhook-id", "webhook-timestamp", "webhook-signature")
# The id that is signed goes first. X-Gitlab-Event-UUID is none: webhooks that set off each other share it, and so do
# several of one request.
_IDS = ("webhook-id", "idempotency-key", "x-gitlab-webhook-uuid")
_URLS = ("git_http_url", "git_ssh_url", "web_url")
_KINDS = {
    "Push Hook": {"push"},
    "Merge Request Hook": {"merge_request"},
    "Issue Hook": {"issue", "work_item"},
    "Confidential Issue Hook": {"issue", "work_item"},
}


class GitLab:
    """GitLab. It implements `Forge`."""

    name: ForgeName = "gitlab"
    signed_by: tuple[str, ...] = ("webhook-signature", _TOKEN)
    content_types: tuple[str, ...] = (JSON,)

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[str], now: float) -> None:
        """Return if a webhook has the secret token, or a signature; see `Forge.verify`.

        Whatever says that it is signed has to be signed well: the token does not make up for it.
        """
        if any(name in headers for name in _SIGNED):
            check_standard(headers, body, secrets, now)
        else:
            check_token(_TOKEN, headers.get(_TOKEN), secrets)

    def read(self, headers: Headers, body: bytes) -> Delivery:
        """Return what a webhook says; see `Forge.read`."""
        delivery_id = delivery_id_of(headers, _IDS)
        event = headers.get(_EVENT, "")
        if event not in _KINDS and event not in events.GITLAB:
            unknown_event("GitLab", event)
        if content_type_of(headers) != JSON:
            raise wrong_content_type(JSON)
        found = self._happening(event, Fields.parse(body))
        if isinstance(found, str):
            return Delivery(self.name, delivery_id, event, ignored=found)
        return Delivery(self.name, delivery_id, event, found)

    def _happening(self, event: str, fields: Fields) -> Happening | str:
        if event not in _KINDS:
            return f"{event} ends no work"
        if fields.word("object_kind") not in _KINDS[event]:
            raise invalid(f"object_kind is none of {event}")
        if event == "Push Hook":
            return pushed_deletion(fields) or branch_deleted(_project(fields, "project"), pushed_branch(fields))
        return self._merge_request(fields) if event == "Merge Request Hook" else self._issue(fields)

    def _merge_request(self, fields: Fields) -> Happening | str:
        change = fields.object("object_attributes")
        if (action := _action_of(change)) not in ("close", "merge"):
            return f"the action {action} does not close a merge request"
        number, source = change.number("iid"), change.object_or_null("source")
        branch = branch_that_ends(change.branch("source_branch"), source)
        return Happening(
            "change_closed",
            _project(change, "target"),
            f"!{number}",
            branch=branch,
            branch_repo=() if source is None or branch is None else source.urls(_URLS),
            refs=(f"refs/merge-requests/{number}/head", f"refs/merge-requests/{number}/merge"),
        )

    def _issue(self, fields: Fields) -> Happening | str:
        issue = fields.object("object_attributes")
        if (action := _action_of(issue)) != "close":
            return f"the action {action} does not close an issue"
        if not fields.has("project"):
            return "it belongs to a group, not to a project"
        return Happening("issue_closed", _project(fields, "project"), issue.number("iid"))


def _action_of(fields: Fields) -> str:
    """Return what was done; a webhook that somebody sends from GitLab's settings to try it does not say."""
    return fields.word("action") if fields.has("action") else "none"


def _project(fields: Fields, name: str) -> tuple[str, ...]:
    return fields.object(name).urls(_URLS)
