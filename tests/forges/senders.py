"""Forges that send webhooks, as far as a receiver can tell: their headers, the shapes of their payloads, signatures.

Shapes and names of fields are those that the forges' documentation shows (see docs/webhooks.md); all else is made up.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import orjson

from everturn.model import ForgeName

SECRET = "a-secret-of-some-length"
KEY = b"thirty-two bytes of a secret key"
SIGNING = "whsec_" + base64.b64encode(KEY).decode()
NOW = 1_790_000_000.0
ID = "6d1f2c9a-0b57-4f0e-8d53-2b7f1c4e9a10"

Payload = dict[str, Any]
Request = tuple[dict[str, str], bytes]
Path = tuple[str, ...]


@dataclass(frozen=True)
class Webhook:
    """What is sent. `needed` are the fields that nobody can do without."""

    event: str
    payload: Payload
    needed: tuple[Path, ...] = ()

    def changed(self, *path: str, to: Any) -> Webhook:
        payload = copy.deepcopy(self.payload)
        parent = inside(payload, path[:-1])
        parent[path[-1]] = to
        return Webhook(self.event, payload)

    def without(self, *path: str) -> Webhook:
        payload = copy.deepcopy(self.payload)
        del inside(payload, path[:-1])[path[-1]]
        return Webhook(self.event, payload)


def inside(payload: Payload, path: Path) -> Payload:
    for name in path:
        payload = payload[name]
    return payload


def paths(value: Any, upto: Path = ()) -> Iterator[Path]:
    """Every field of a payload."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield (*upto, name)
            yield from paths(each, (*upto, name))


@dataclass(frozen=True)
class Sender:
    """One forge. `closed(fork=…, merged=…)` and so on make what it sends."""

    name: ForgeName
    headers: Callable[[str, str], dict[str, str]]  # of an event and an id
    sign: Callable[[bytes, str], dict[str, str]]  # of a JSON body and a secret
    urls: Callable[[str], tuple[str, ...]]  # of owner/name: those that we take
    closed: Callable[..., Webhook]
    issue: Webhook
    deletions: tuple[Webhook, ...]  # of the branch `fix/tide-tables`
    quiet: tuple[Webhook, ...]  # what ends no work
    number: str
    refs: tuple[str, ...]
    branch_at: tuple[Path, ...]  # where the name of the branch stands, in `closed` and in each of `deletions`
    form: bool = True
    signs_forms: bool = False  # whether the form is what is signed, and not the JSON in it

    def send(self, webhook: Webhook, secret: str = SECRET, *, delivery_id: str = ID) -> Request:
        return self.send_body(webhook.event, orjson.dumps(webhook.payload), secret, delivery_id=delivery_id)

    def send_body(self, event: str, body: bytes, secret: str = SECRET, *, delivery_id: str = ID) -> Request:
        headers = {"content-type": "application/json", **self.headers(event, delivery_id)}
        return headers | self.sign(body, secret), body

    def send_form(self, webhook: Webhook, secret: str = SECRET) -> Request:
        content = orjson.dumps(webhook.payload)
        body = urlencode({"payload": content.decode()}).encode()
        headers = {"content-type": "application/x-www-form-urlencoded", **self.headers(webhook.event, ID)}
        return headers | self.sign(body if self.signs_forms else content, secret), body


def hex_hmac(body: bytes, secret: str, algorithm: str = "sha256") -> str:
    return hmac.new(secret.encode(), body, algorithm).hexdigest() if secret else ""


def standard_signature(body: bytes, *, key: bytes = KEY, seconds: int = int(NOW), marked: str = ID) -> dict[str, str]:
    signed = hmac.new(key, f"{marked}.{seconds}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": marked,
        "webhook-timestamp": str(seconds),
        "webhook-signature": "v1," + base64.b64encode(signed).decode(),
    }


# --- GitHub, Gitea and Forgejo


def hub_repository(host: str, full_name: str) -> Payload:
    owner, name = full_name.split("/")
    return {
        "id": 4711,
        "name": name,
        "full_name": full_name,
        "owner": {"id": 12, "login": owner},
        "private": True,
        "html_url": f"https://{host}/{full_name}",
        "url": f"https://api.{host}/repos/{full_name}",
        "ssh_url": f"git@{host}:{full_name}.git",
        "clone_url": f"https://{host}/{full_name}.git",
        "default_branch": "main",
    }


def hub_urls(host: str) -> Callable[[str], tuple[str, ...]]:
    return lambda full_name: (
        f"https://{host}/{full_name}.git",
        f"git@{host}:{full_name}.git",
        f"https://{host}/{full_name}",
    )


def hub_closed(host: str) -> Callable[..., Webhook]:
    def closed(*, merged: bool = True, fork: str | None = "moss/harbor", action: str = "closed") -> Webhook:
        base = hub_repository(host, "moss/harbor")
        payload = {
            "action": action,
            "number": 7,
            "pull_request": {
                "id": 99,
                "number": 7,
                "state": "closed",
                "title": "Tide tables for next year",
                "merged": merged,
                "head": {
                    "label": "fix/tide-tables",
                    "ref": "fix/tide-tables",
                    "sha": "3f" * 20,
                    "repo": None if fork is None else hub_repository(host, fork),
                },
                "base": {"label": "main", "ref": "main", "sha": "a1" * 20, "repo": base},
            },
            "repository": base,
            "sender": {"id": 12, "login": "moss"},
        }
        needed = (
            ("action",),
            ("pull_request",),
            ("pull_request", "number"),
            ("pull_request", "head"),
            ("pull_request", "head", "ref"),
            ("pull_request", "head", "repo"),
            ("repository",),
        )
        return Webhook("pull_request", payload, needed)

    return closed


def hub_issue(host: str, action: str = "closed") -> Webhook:
    payload = {
        "action": action,
        "number": 7,
        "issue": {"id": 5, "number": 7, "state": "closed", "title": "High water is late", "pull_request": None},
        "repository": hub_repository(host, "moss/harbor"),
        "sender": {"id": 12, "login": "moss"},
    }
    return Webhook("issues", payload, (("action",), ("issue",), ("issue", "number"), ("repository",)))


def hub_delete(host: str, ref: str = "fix/tide-tables", ref_type: str = "branch") -> Webhook:
    payload = {
        "ref": ref,
        "ref_type": ref_type,
        "pusher_type": "user",
        "repository": hub_repository(host, "moss/harbor"),
        "sender": {"id": 12, "login": "moss"},
    }
    return Webhook("delete", payload, (("ref",), ("ref_type",), ("repository",)))


def hub_push(host: str, ref: str = "refs/heads/fix/tide-tables", after: str = "0" * 40) -> Webhook:
    payload = {
        "ref": ref,
        "before": "3f" * 20,
        "after": after,
        "commits": [],
        "head_commit": None,
        "repository": hub_repository(host, "moss/harbor"),
        "pusher": {"login": "moss"},
    }
    return Webhook("push", payload, (("ref",), ("after",), ("repository",)))


def hub_quiet(host: str) -> tuple[Webhook, ...]:
    return (
        *(hub_closed(host)(action=action) for action in ("opened", "reopened", "edited", "label_updated")),
        *(hub_issue(host, action) for action in ("opened", "reopened", "transferred", "demilestoned")),
        hub_issue(host).changed("issue", "pull_request", to={"merged": False}),
        hub_delete(host, "v1.2", "tag"),
        hub_delete(host, "refs/pull/7/head", "pull"),
        hub_push(host, after="3f" * 20),
        hub_push(host, after="3f" * 32),
        hub_push(host, "refs/tags/v1.2"),
        Webhook("create", {"ref": "fix/tide-tables", "ref_type": "branch"}),
        Webhook("fork", {}),
    )


def hub(name: ForgeName, host: str, prefix: str, **others: Any) -> Sender:
    return Sender(
        name,
        headers=others.pop("headers", lambda event, key: {f"{prefix}-event": event, f"{prefix}-delivery": key}),
        urls=hub_urls(host),
        closed=hub_closed(host),
        issue=hub_issue(host),
        deletions=(hub_delete(host), hub_push(host), hub_push(host, after="0" * 64)),
        quiet=hub_quiet(host) + others.pop("quiet", ()),
        number="7",
        branch_at=(("pull_request", "head", "ref"), ("ref",), ("ref",), ("ref",)),
        **others,
    )


def github_sign(body: bytes, secret: str) -> dict[str, str]:
    return {
        "x-hub-signature": "sha1=" + hex_hmac(body, secret, "sha1"),
        "x-hub-signature-256": "sha256=" + hex_hmac(body, secret),
    }


def gitea_sign(body: bytes, secret: str) -> dict[str, str]:
    digits = hex_hmac(body, secret)
    return {"x-gitea-signature": digits, "x-gogs-signature": digits} | github_sign(body, secret)


def forgejo_sign(body: bytes, secret: str) -> dict[str, str]:
    return {"x-forgejo-signature": hex_hmac(body, secret)} | gitea_sign(body, secret)


def gitea_headers(event: str, key: str) -> dict[str, str]:
    names = ("x-gitea", "x-gogs", "x-github")
    return {f"{name}-{what}": value for name in names for what, value in (("event", event), ("delivery", key))}


def forgejo_headers(event: str, key: str) -> dict[str, str]:
    return {"x-forgejo-event": event, "x-forgejo-delivery": key} | gitea_headers(event, key)


GITHUB = hub(
    "github",
    "github.example",
    "x-github",
    sign=github_sign,
    signs_forms=True,
    refs=("refs/pull/7/head", "refs/pull/7/merge"),
    quiet=(
        Webhook("ping", {"zen": "Still waters.", "hook_id": 1}),
        *(Webhook(event, {}) for event in ("workflow_run", "issue_comment", "pull_request_review", "star")),
    ),
)
GITEA = hub(
    "gitea",
    "gitea.example",
    "x-gitea",
    headers=gitea_headers,
    sign=gitea_sign,
    refs=("refs/pull/7/head",),
    quiet=tuple(Webhook(event, {}) for event in ("issue_comment", "pull_request_approved", "wiki", "release")),
)
FORGEJO = hub(
    "forgejo",
    "forgejo.example",
    "x-forgejo",
    headers=forgejo_headers,
    sign=forgejo_sign,
    refs=("refs/pull/7/head",),
    quiet=tuple(Webhook(event, {}) for event in ("action_run_failure", "pull_request_rejected", "repository")),
)

# --- GitLab

LAB = "gitlab.example"


def lab_project(full_name: str) -> Payload:
    return {
        "id": 15,
        "name": full_name.split("/")[1],
        "web_url": f"https://{LAB}/{full_name}",
        "git_ssh_url": f"git@{LAB}:{full_name}.git",
        "git_http_url": f"https://{LAB}/{full_name}.git",
        "path_with_namespace": full_name,
        "default_branch": "main",
        "homepage": f"https://{LAB}/{full_name}",
        "url": f"https://{LAB}/{full_name}.git",
    }


def lab_closed(*, merged: bool = True, fork: str | None = "moss/harbor", action: str | None = None) -> Webhook:
    payload = {
        "object_kind": "merge_request",
        "event_type": "merge_request",
        "user": {"id": 1, "username": "moss"},
        "project": lab_project("moss/harbor"),
        "object_attributes": {
            "id": 99,
            "iid": 7,
            "source_branch": "fix/tide-tables",
            "source_project_id": 16,
            "target_branch": "main",
            "target_project_id": 15,
            "state": "merged" if merged else "closed",
            "source": None if fork is None else lab_project(fork),
            "target": lab_project("moss/harbor"),
            "action": action or ("merge" if merged else "close"),
        },
        "changes": {},
    }
    attributes = ("iid", "source_branch", "source", "target")
    needed = (("object_kind",), ("object_attributes",), *(("object_attributes", each) for each in attributes))
    return Webhook("Merge Request Hook", payload, needed)


def lab_issue(event: str = "Issue Hook", kind: str = "issue", action: str = "close") -> Webhook:
    payload = {
        "object_kind": kind,
        "event_type": "confidential_issue" if event.startswith("Confidential") else kind,
        "user": {"id": 1, "username": "moss"},
        "project": lab_project("moss/harbor"),
        "object_attributes": {
            "id": 301,
            "iid": 7,
            "type": "Issue" if kind == "issue" else "Task",
            "state": "closed",
            "action": action,
        },
        "changes": {},
    }
    return Webhook(event, payload, (("object_kind",), ("object_attributes",), ("object_attributes", "iid")))


def lab_push(ref: str = "refs/heads/fix/tide-tables", after: str = "0" * 40) -> Webhook:
    payload = {
        "object_kind": "push",
        "event_name": "push",
        "before": "3f" * 20,
        "after": after,
        "ref": ref,
        "checkout_sha": None,
        "user_username": "moss",
        "project_id": 15,
        "project": lab_project("moss/harbor"),
        "commits": [],
        "total_commits_count": 0,
    }
    return Webhook("Push Hook", payload, (("object_kind",), ("after",), ("ref",), ("project",)))


def lab_headers(event: str, key: str) -> dict[str, str]:
    return {
        "x-gitlab-event": event,
        "x-gitlab-event-uuid": "the same for several",
        "x-gitlab-webhook-uuid": "0f0f",
        "idempotency-key": key,
        "x-gitlab-instance": f"https://{LAB}",
    }


GITLAB = Sender(
    "gitlab",
    headers=lab_headers,
    sign=lambda body, secret: {"x-gitlab-token": secret},
    urls=lambda full_name: (
        f"https://{LAB}/{full_name}.git",
        f"git@{LAB}:{full_name}.git",
        f"https://{LAB}/{full_name}",
    ),
    closed=lab_closed,
    issue=lab_issue(),
    deletions=(lab_push(), lab_push(after="0" * 64)),
    quiet=(
        *(lab_closed(action=action) for action in ("open", "reopen", "update", "approved", "unapproval")),
        lab_closed().without("object_attributes", "action"),
        *(lab_issue(action=action) for action in ("open", "reopen", "update")),
        lab_issue(kind="work_item").without("project"),
        lab_push(after="3f" * 20),
        Webhook("Tag Push Hook", lab_push("refs/tags/v1.2").payload | {"object_kind": "tag_push"}),
        *(Webhook(f"{event} Hook", {}) for event in ("Note", "Pipeline", "Job", "Deployment", "System", "Emoji")),
    ),
    number="!7",
    refs=("refs/merge-requests/7/head", "refs/merge-requests/7/merge"),
    branch_at=(("object_attributes", "source_branch"), ("ref",), ("ref",)),
    form=False,
)

SENDERS = (GITHUB, GITEA, FORGEJO, GITLAB)
