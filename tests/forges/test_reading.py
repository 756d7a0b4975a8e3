"""What webhooks say: the same of every forge, whatever its words for it are."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any
from urllib.parse import quote_plus

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everturn.errors import Invalid
from everturn.forges import FORGES, Forge, Happening
from everturn.forges.events import FORGEJO as FORGEJO_EVENTS
from everturn.forges.events import GITEA as GITEA_EVENTS
from everturn.forges.events import GITHUB as GITHUB_EVENTS
from everturn.forges.events import GITLAB as GITLAB_EVENTS
from everturn.forges.payloads import form_payload
from forges.senders import FORGEJO, GITEA, GITHUB, GITLAB, ID, SENDERS, Sender, Webhook, lab_issue

EVENTS = {"github": GITHUB_EVENTS, "gitea": GITEA_EVENTS, "forgejo": FORGEJO_EVENTS, "gitlab": GITLAB_EVENTS}

HOSTILE_BRANCHES = (
    "",
    "..",
    "../../etc/passwd",
    "a/../b",
    "/rooted",
    "a//b",
    "with space",
    "line\nbreak",
    "header\r\nX-Injected: yes",
    "nul\x00byte",
    "\x1b[31mred",
    "\u202egnp.elbmah",
    "colon:colon",
    "what?",
    "a" * 1025,
    "ü" * 600,
    "name.lock",
    "@{-1}",
    "back\\slash",
)
HOSTILE_URLS = (
    "https://git.example/moss/../../etc",
    "../../etc/passwd",
    "git@git.example:../harbor.git",
    "https://git.example/moss/har bor",
    "https://git.example/moss/harbor\r\nX-Injected: yes",
    "https://git.example/moss/harbor\x00",
    "https://git.example/\u202emoss",
    "https://git.example/" + "a" * 3000,
)


def sentence_of(caught: pytest.ExceptionInfo[Invalid]) -> str:
    message = caught.value.message
    assert message.isprintable()
    assert len(message) < 200
    return message


@pytest.mark.parametrize("merged", [True, False], ids=["merged", "unmerged"])
def test_a_closed_change_names_its_number_its_branch_and_its_refs(sender: Sender, forge: Forge, merged: bool) -> None:
    webhook = sender.closed(merged=merged)
    delivery = forge.read(*sender.send(webhook))
    assert (delivery.forge, delivery.delivery_id, delivery.event) == (sender.name, ID, webhook.event)
    assert delivery.ignored == ""
    assert delivery.happening == Happening(
        "change_closed",
        repo=sender.urls("moss/harbor"),
        number=sender.number,
        branch="fix/tide-tables",
        branch_repo=sender.urls("moss/harbor"),
        refs=sender.refs,
    )


def test_a_change_from_a_fork_names_the_forks_repository_as_the_branchs(sender: Sender, forge: Forge) -> None:
    happening = forge.read(*sender.send(sender.closed(fork="fern/harbor"))).happening
    assert happening
    assert happening.repo == sender.urls("moss/harbor")
    assert happening.branch_repo == sender.urls("fern/harbor")


def test_a_change_from_a_fork_that_is_gone_has_a_branch_of_no_repository(sender: Sender, forge: Forge) -> None:
    happening = forge.read(*sender.send(sender.closed(fork=None))).happening
    assert happening
    assert (happening.branch, happening.branch_repo, happening.number) == ("fix/tide-tables", (), sender.number)


def test_a_closed_issue_names_its_number(sender: Sender, forge: Forge) -> None:
    happening = forge.read(*sender.send(sender.issue)).happening
    assert happening == Happening("issue_closed", sender.urls("moss/harbor"), "7")


def test_a_deleted_branch_is_named_however_it_was_deleted(sender: Sender, forge: Forge) -> None:
    urls = sender.urls("moss/harbor")
    for webhook in sender.deletions:
        happening = forge.read(*sender.send(webhook)).happening
        assert happening == Happening("branch_deleted", urls, branch="fix/tide-tables", branch_repo=urls)


def test_a_default_branch_does_not_end_with_a_change_that_came_from_it(sender: Sender, forge: Forge) -> None:
    source = ("object_attributes", "source") if sender is GITLAB else ("pull_request", "head", "repo")
    webhook = sender.closed().changed(*source, "default_branch", to="fix/tide-tables")
    happening = forge.read(*sender.send(webhook)).happening
    assert happening is not None
    assert (happening.number, happening.branch, happening.branch_repo) == (sender.number, None, ())


@pytest.mark.parametrize("sender", [GITHUB, GITEA, FORGEJO], ids=lambda each: each.name)
@pytest.mark.parametrize("more", [{"master_branch": "main", "description": None}, {"sha": "1" * 40}])
def test_a_branch_that_was_made_is_not_deleted_by_another_name_of_the_event(
    sender: Sender, more: dict[str, Any]
) -> None:
    webhook = next(each for each in sender.deletions if each.event == "delete")
    made = Webhook("delete", {**webhook.payload, **more})
    with pytest.raises(Invalid, match="made"):
        FORGES[sender.name].read(*sender.send(made))


def test_what_happened_survives_as_json(sender: Sender, forge: Forge) -> None:
    for webhook in (sender.closed(), sender.issue, *sender.deletions):
        happening = forge.read(*sender.send(webhook)).happening
        assert happening
        assert Happening.of(orjson.loads(orjson.dumps(happening.facts()))) == happening


def test_what_ends_no_work_is_ignored_and_says_why(sender: Sender, forge: Forge) -> None:
    for webhook in sender.quiet:
        delivery = forge.read(*sender.send(webhook))
        assert delivery.happening is None, webhook
        assert delivery.ignored, webhook
        assert delivery.delivery_id == ID


def test_every_other_event_of_the_forge_is_ignored(sender: Sender, forge: Forge) -> None:
    for event in EVENTS[sender.name]:
        assert forge.read(*sender.send(Webhook(event, {}))).ignored, event


@pytest.mark.parametrize(
    "event", ["", "rubbish", "PULL_REQUEST", "push ", "push\n", "x" * 5000, "\u202e", "Ping Hook"]
)
def test_an_event_that_the_forge_does_not_have_is_refused(sender: Sender, forge: Forge, event: str) -> None:
    with pytest.raises(Invalid) as caught:
        forge.read(*sender.send(Webhook(event, {})))
    assert "event" in sentence_of(caught)


def test_an_event_of_another_forge_is_refused() -> None:
    for theirs, ours in ((GITHUB, GITLAB), (GITLAB, GITHUB), (FORGEJO, GITLAB)):
        headers, body = ours.send(theirs.closed())
        with pytest.raises(Invalid, match="event"):
            FORGES[ours.name].read(headers, body)


def cases_without() -> list[Any]:
    return [
        pytest.param(sender, webhook, path, id=f"{sender.name}-{webhook.event}-{'.'.join(path)}")
        for sender in SENDERS
        for webhook in (sender.closed(), sender.issue, *sender.deletions[:2])
        for path in webhook.needed
    ]


@pytest.mark.parametrize(("sender", "webhook", "path"), cases_without())
def test_a_field_that_is_needed_is_missed_by_its_name(
    sender: Sender, webhook: Webhook, path: tuple[str, ...]
) -> None:
    forge = FORGES[sender.name]
    for broken in (webhook.without(*path), *(webhook.changed(*path, to=bad) for bad in ([], 1.5, True, -1))):
        with pytest.raises(Invalid) as caught:
            forge.read(*sender.send(broken))
        assert path[-1] in sentence_of(caught)


def test_a_field_that_is_not_needed_is_not_missed(sender: Sender, forge: Forge) -> None:
    webhook = sender.closed()
    spare = [name for name in webhook.payload if (name,) not in webhook.needed]
    for name in spare:
        assert forge.read(*sender.send(webhook.without(name))).happening


def test_a_repository_without_any_url_is_refused(sender: Sender, forge: Forge) -> None:
    where = "project" if sender.name == "gitlab" else "repository"
    for emptied in ({}, {"id": 1}, {"clone_url": "", "git_http_url": ""}):
        with pytest.raises(Invalid, match="no URL of the repository"):
            forge.read(*sender.send(sender.deletions[0].changed(where, to=emptied)))


@pytest.mark.parametrize("branch", HOSTILE_BRANCHES)
def test_a_name_that_git_gives_no_branch_is_refused_and_not_repeated(sender: Sender, branch: str) -> None:
    forge = FORGES[sender.name]
    for webhook, path in zip((sender.closed(), *sender.deletions), sender.branch_at, strict=True):
        full = f"refs/heads/{branch}" if str(inside_text(webhook, path)).startswith("refs/") else branch
        with pytest.raises(Invalid) as caught:
            forge.read(*sender.send(webhook.changed(*path, to=full)))
        assert not branch or branch not in sentence_of(caught)


def inside_text(webhook: Webhook, path: tuple[str, ...]) -> Any:
    value: Any = webhook.payload
    for name in path:
        value = value[name]
    return value


@pytest.mark.parametrize(
    "branch", ["feature/x", "feature-x", "ünïcode", "日本", "refs/heads/x", "a.b", "1", "-x", "x@y"]
)
def test_a_name_that_git_gives_a_branch_is_taken_as_it_is(sender: Sender, branch: str) -> None:
    forge = FORGES[sender.name]
    for webhook, path in zip((sender.closed(), *sender.deletions), sender.branch_at, strict=True):
        full = f"refs/heads/{branch}" if str(inside_text(webhook, path)).startswith("refs/") else branch
        happening = forge.read(*sender.send(webhook.changed(*path, to=full))).happening
        assert happening
        assert happening.branch == branch


@pytest.mark.parametrize("url", HOSTILE_URLS)
def test_a_hostile_url_of_a_repository_is_refused(sender: Sender, forge: Forge, url: str) -> None:
    where, name = ("project", "git_http_url") if sender.name == "gitlab" else ("repository", "clone_url")
    with pytest.raises(Invalid) as caught:
        forge.read(*sender.send(sender.deletions[0].changed(where, name, to=url)))
    assert url not in sentence_of(caught)


@pytest.mark.parametrize("number", [0, -7, 1 << 63, 1 << 80, "7", True, None, 7.0, [7], "7; rm"])
def test_a_number_is_a_whole_one_from_1_on(sender: Sender, forge: Forge, number: object) -> None:
    at = ("object_attributes", "iid") if sender.name == "gitlab" else ("issue", "number")
    payload = orjson.dumps(sender.issue.changed(*at, to="NUMBER").payload)
    with pytest.raises(Invalid, match=at[-1]):
        forge.read(*sender.send_body(sender.issue.event, payload.replace(b'"NUMBER"', json_of(number))))


def json_of(value: object) -> bytes:
    return str(value).encode() if type(value) is int else orjson.dumps(value)


BROKEN = {
    "empty": b"",
    "white": b" \n",
    "no UTF-8": b'{"ref": "\xff\xfe"}',
    "latin-1": '{"ref": "ü"}'.encode("latin-1"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"ref": 1}'.encode("utf-16"),
    "cut off": b'{"ref": "refs/he',
    "two": b"{} {}",
    "deep list": b"[" * 10_000 + b"]" * 10_000,
    "deep object": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "deep and cut off": b"[" * 10_000,
    "not a number": b'{"after": NaN}',
    "infinity": b'{"after": 1e999}',
    "surrogate": b'{"ref": "\\ud800"}',
    "list": b"[]",
    "text": b'"push"',
    "null": b"null",
    "number": b"7",
    "XML": b"<push/>",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_what_is_no_json_object_is_refused_in_one_sentence(sender: Sender, forge: Forge, body: bytes) -> None:
    for event in (sender.closed().event, sender.issue.event, sender.deletions[0].event, sender.quiet[-1].event):
        with pytest.raises(Invalid) as caught:
            forge.read(*sender.send_body(event, body))
        assert "the webhook's body is" in sentence_of(caught)


@pytest.mark.slow
@pytest.mark.parametrize("sender", [GITHUB, GITLAB], ids=lambda each: each.name)
def test_a_million_keys_are_read_quickly(sender: Sender) -> None:
    body = b"{" + b",".join(b'"%d":0' % each for each in range(1_000_000)) + b"}"
    began = time.process_time()
    with pytest.raises(Invalid):
        FORGES[sender.name].read(*sender.send_body(sender.closed().event, body))
    assert time.process_time() - began < 3  # it takes a third of a second


def test_of_a_key_that_is_there_twice_the_last_one_counts(sender: Sender, forge: Forge) -> None:
    webhook = sender.deletions[-1]
    body = b'{"after": "' + b"3f" * 20 + b'",' + orjson.dumps(webhook.payload)[1:]
    assert forge.read(*sender.send_body(webhook.event, body)).happening


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "multipart/form-data; boundary=x", "application/jsonp", "json", "*/*"]
)
def test_another_content_type_is_refused(sender: Sender, forge: Forge, kind: str) -> None:
    headers, body = sender.send(sender.closed())
    with pytest.raises(Invalid, match="content type"):
        forge.read(headers | {"content-type": kind}, body)
    headers.pop("content-type")
    with pytest.raises(Invalid, match="content type"):
        forge.read(headers, body)


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"])
def test_json_may_have_parameters(sender: Sender, forge: Forge, kind: str) -> None:
    headers, body = sender.send(sender.closed())
    assert forge.read(headers | {"content-type": kind}, body).happening


def test_a_form_is_read_where_the_forge_sends_forms(sender: Sender, forge: Forge) -> None:
    webhook = sender.closed().changed("title", to="50 % + ü & \\ \x7f = 日本")
    request = sender.send_form(webhook)
    if sender.form:
        assert forge.read(*request) == forge.read(*sender.send(webhook))
    else:
        with pytest.raises(Invalid, match="content type"):
            forge.read(*request)


@pytest.mark.parametrize(
    "body",
    [b"", b"payload", b"{}", b"other=1", b"payload={}&payload={}", b"a=1&payload={}", b"payload=%zz", b"payload=%4"],
)
def test_another_form_is_refused(sender: Sender, forge: Forge, body: bytes) -> None:
    headers, _ = sender.send_form(sender.closed())
    with pytest.raises(Invalid):
        forge.read(headers, body)


def test_a_form_with_an_ampersand_inside_is_refused() -> None:
    headers, body = GITHUB.send_form(GITHUB.issue)
    assert FORGES["github"].read(headers, body).happening
    with pytest.raises(Invalid, match="form"):
        FORGES["github"].read(headers, body.replace(b"High+water", b"High&water"))


@given(st.binary(max_size=80) | st.text(r"\%x41+u&n\n" + '"', max_size=30).map(str.encode))
def test_a_form_comes_back_as_it_was(content: bytes) -> None:
    assert form_payload(b"payload=" + quote_plus(content).encode()) == content
    raw = content.replace(b"%", b"").replace(b"&", b"").replace(b"+", b"")
    assert form_payload(b"payload=" + raw) == raw


@pytest.mark.parametrize(
    "key", ["", " ", "a b", "a/b", "a" * 129, "a\n", "\u0661", "ü", "<script>", "a\x00", "'; DROP TABLE deliveries"]
)
def test_a_hostile_delivery_id_is_refused(sender: Sender, forge: Forge, key: str) -> None:
    with pytest.raises(Invalid, match="delivery id") as caught:
        forge.read(*sender.send(sender.closed(), delivery_id=key))
    sentence_of(caught)


@pytest.mark.parametrize("key", ["1", "a" * 128, "A.b_c:d-e"])
def test_a_delivery_id_is_kept_as_it_is(sender: Sender, forge: Forge, key: str) -> None:
    assert forge.read(*sender.send(sender.closed(), delivery_id=key)).delivery_id == key


def test_a_webhook_without_a_delivery_id_is_refused(sender: Sender, forge: Forge) -> None:
    headers, body = sender.send(sender.closed())
    kept = {name: value for name, value in headers.items() if value != ID and "webhook-uuid" not in name}
    with pytest.raises(Invalid, match="no delivery id"):
        forge.read(kept, body)


def test_the_headers_of_another_forge_count_for_nothing() -> None:
    for sender in (GITEA, FORGEJO):
        headers, body = sender.send(sender.issue)
        misled = headers | {"x-github-event": "push", "x-github-delivery": "another", "x-gogs-event": "push"}
        delivery = FORGES[sender.name].read(misled, body)
        assert (delivery.event, delivery.delivery_id) == ("issues", ID)


# --- what is one forge's own


@pytest.mark.parametrize("sender", [GITEA, FORGEJO], ids=lambda each: each.name)
def test_gitea_keeps_the_name_of_a_branch_that_is_gone_as_the_label(sender: Sender) -> None:
    gone = sender.closed().changed("pull_request", "head", "ref", to="refs/pull/7/head")
    happening = FORGES[sender.name].read(*sender.send(gone)).happening
    assert happening
    assert (happening.branch, happening.branch_repo) == ("fix/tide-tables", sender.urls("moss/harbor"))


@pytest.mark.parametrize("sender", [GITEA, FORGEJO], ids=lambda each: each.name)
def test_a_change_that_was_pushed_without_a_branch_has_none(sender: Sender) -> None:
    pushed = sender.closed().changed("pull_request", "head", "ref", to="refs/pull/7/head")
    pushed = pushed.changed("pull_request", "head", "label", to="")
    happening = FORGES[sender.name].read(*sender.send(pushed)).happening
    assert happening
    assert (happening.branch, happening.branch_repo, happening.refs) == (None, (), ("refs/pull/7/head",))


@pytest.mark.parametrize("sender", [GITEA, FORGEJO], ids=lambda each: each.name)
def test_an_event_that_gitea_leaves_empty_is_told_by_its_type(sender: Sender) -> None:
    headers, body = sender.send(Webhook("", {"action": "created"}))
    typed = headers | {f"x-{sender.name}-event-type": "package"}
    assert FORGES[sender.name].read(typed, body).event == "package"


@pytest.mark.parametrize("kind", ["issue", "work_item"])
@pytest.mark.parametrize("event", ["Issue Hook", "Confidential Issue Hook"])
def test_gitlab_closes_confidential_issues_and_other_work_items_too(event: str, kind: str) -> None:
    happening = FORGES["gitlab"].read(*GITLAB.send(lab_issue(event, kind))).happening
    assert happening == Happening("issue_closed", GITLAB.urls("moss/harbor"), "7")


def test_gitlabs_payload_has_to_be_of_the_event_in_the_header() -> None:
    for event, webhook in (("Push Hook", GITLAB.issue), ("Issue Hook", lab_issue(kind="push"))):
        with pytest.raises(Invalid, match="object_kind"):
            FORGES["gitlab"].read(*GITLAB.send(replace(webhook, event=event)))


def test_gitlab_says_what_delivery_it_is_in_one_of_three_headers_and_the_signed_one_goes_first() -> None:
    headers, body = GITLAB.send(GITLAB.issue)
    forge = FORGES["gitlab"]
    assert forge.read(headers | {"webhook-id": "signed"}, body).delivery_id == "signed"
    assert forge.read(headers, body).delivery_id == ID
    del headers["idempotency-key"]
    assert forge.read(headers, body).delivery_id == "0f0f"
