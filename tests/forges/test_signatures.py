"""Who is believed: only whoever knows the secret, and nobody learns anything about it."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from everturn.errors import Denied
from everturn.forges import FORGES, Forge
from forges.senders import (
    FORGEJO,
    GITEA,
    GITHUB,
    GITLAB,
    KEY,
    NOW,
    SECRET,
    SIGNING,
    Sender,
    hex_hmac,
    standard_signature,
)

OTHERS = ["another-secret-of-that-length", SECRET.upper(), SECRET + " "]
HEADER = {
    "github": "x-hub-signature-256",
    "gitea": "x-gitea-signature",
    "forgejo": "x-forgejo-signature",
    "gitlab": "x-gitlab-token",
}


def prefixed(sender: Sender, digits: str) -> str:
    return f"sha256={digits}" if sender.name == "github" else digits


def test_a_webhook_with_our_secret_is_believed(sender: Sender, forge: Forge) -> None:
    forge.verify(*sender.send(sender.closed()), [SECRET], NOW)


def test_any_one_of_several_secrets_is_enough(sender: Sender, forge: Forge) -> None:
    request = sender.send(sender.closed())
    for secrets in ([SECRET, *OTHERS], [*OTHERS, SECRET], ["", SECRET], [SECRET, SIGNING]):
        forge.verify(*request, secrets, NOW)


def test_a_webhook_with_another_secret_is_refused_in_the_same_words_whatever_ours_are(
    sender: Sender, forge: Forge
) -> None:
    said = set()
    for secrets in (OTHERS, OTHERS[:1], [SECRET[:-1]]):
        with pytest.raises(Denied) as caught:
            forge.verify(*sender.send(sender.closed()), secrets, NOW)
        said.add(str(caught.value))
    (sentence,) = said
    assert SECRET not in sentence


def test_nobody_is_believed_while_there_is_no_secret(sender: Sender, forge: Forge) -> None:
    for secrets in ([], [""], ["", ""]):
        for secret in (SECRET, ""):
            with pytest.raises(Denied):
                forge.verify(*sender.send(sender.closed(), secret), secrets, NOW)


def test_whoever_signs_with_nothing_is_not_believed() -> None:
    digits = hmac.new(b"", b"{}", "sha256").hexdigest()
    signatures = {
        "x-hub-signature-256": f"sha256={digits}",
        "x-gitea-signature": digits,
        "x-forgejo-signature": digits,
    }
    for name, headers in [
        *((name, signatures) for name in ("github", "gitea", "forgejo")),
        ("gitlab", standard_signature(b"{}", key=b"")),
    ]:
        for secrets in ([], [""]):
            with pytest.raises(Denied, match="no secret"):
                FORGES[name].verify(headers, b"{}", secrets, NOW)


def test_an_empty_or_missing_signature_is_refused(sender: Sender, forge: Forge) -> None:
    headers, body = sender.send(sender.closed())
    header = HEADER[sender.name]
    for changed in (headers | {header: ""}, {name: each for name, each in headers.items() if name != header}):
        with pytest.raises(Denied, match=header):
            forge.verify(changed, body, [SECRET], NOW)


@pytest.mark.parametrize("sender", [GITHUB, GITEA, FORGEJO], ids=lambda each: each.name)
@pytest.mark.parametrize(
    "spoil",
    [
        str.upper,
        lambda digits: digits[:-1],
        lambda digits: digits + "0",
        lambda digits: digits[:-1] + "g",
        lambda digits: digits[:-1] + "\u0665",
        lambda digits: digits[:-1] + "ÿ",
        lambda digits: digits + "\n",
        lambda digits: " " + digits,
        lambda digits: digits + "," + digits,
        lambda digits: "0" * 64,
        lambda digits: "",
        lambda digits: "sha1=" + digits,
        lambda digits: "0x" + digits,
        lambda digits: "a" * 100_000,
        lambda digits: "\ud800" * 64,
    ],
)
def test_a_malformed_signature_is_refused(sender: Sender, spoil) -> None:  # type: ignore[no-untyped-def]
    headers, body = sender.send(sender.closed())
    spoilt = prefixed(sender, spoil(hex_hmac(body, SECRET)))
    with pytest.raises(Denied) as caught:
        FORGES[sender.name].verify(headers | {HEADER[sender.name]: spoilt}, body, [SECRET], NOW)
    assert caught.value.message.isascii()
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("sender", [GITHUB, GITEA, FORGEJO], ids=lambda each: each.name)
def test_a_body_that_was_changed_is_refused(sender: Sender) -> None:
    headers, body = sender.send(sender.closed())
    for changed in (body + b" ", body[:-1], b"", body.replace(b"harbor", b"harbour")):
        with pytest.raises(Denied):
            FORGES[sender.name].verify(headers, changed, [SECRET], NOW)


@pytest.mark.parametrize("sender", [GITHUB, GITEA, FORGEJO], ids=lambda each: each.name)
def test_a_form_is_verified_by_what_the_forge_signs_of_it(sender: Sender) -> None:
    headers, body = sender.send_form(sender.closed())
    FORGES[sender.name].verify(headers, body, [SECRET], NOW)
    with pytest.raises(Denied):
        FORGES[sender.name].verify(headers, body + b"&payload={}", [SECRET], NOW)


def test_sha_1_alone_is_not_enough() -> None:
    for sender in (GITHUB, GITEA, FORGEJO):
        headers, body = sender.send(sender.closed())
        weak = {name: each for name, each in headers.items() if "signature" not in name}
        weak["x-hub-signature"] = "sha1=" + hmac.new(SECRET.encode(), body, "sha1").hexdigest()
        with pytest.raises(Denied):
            FORGES[sender.name].verify(weak, body, [SECRET], NOW)


@pytest.mark.parametrize("sender", [GITEA, FORGEJO], ids=lambda each: each.name)
def test_the_signature_of_another_forge_is_none(sender: Sender) -> None:
    headers, body = sender.send(sender.closed())
    right = headers.pop(HEADER[sender.name])
    with pytest.raises(Denied):  # those of GitHub, and of Gitea at Forgejo, are still there and right
        FORGES[sender.name].verify(headers, body, [SECRET], NOW)
    FORGES[sender.name].verify({HEADER[sender.name]: right}, body, [SECRET], NOW)


def test_what_one_forge_sends_is_refused_at_another_ones_address(sender: Sender) -> None:
    request = sender.send(sender.closed())
    for name, forge in FORGES.items():
        if HEADER[name] not in request[0]:
            with pytest.raises(Denied):
                forge.verify(*request, [SECRET], NOW)


def test_the_test_vector_that_github_publishes() -> None:
    """https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation"""
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    forge = FORGES["github"]
    forge.verify({"x-hub-signature-256": signature}, b"Hello, World!", ["It's a Secret to Everybody"], NOW)
    with pytest.raises(Denied):
        forge.verify({"x-hub-signature-256": signature}, b"Hello, World?", ["It's a Secret to Everybody"], NOW)


# --- GitLab's signed form


def signed(body: bytes = b"{}", **changes: str) -> dict[str, str]:
    return standard_signature(body) | {name.replace("_", "-"): each for name, each in changes.items()}


def test_the_test_vector_that_standard_webhooks_publishes() -> None:
    """https://github.com/standard-webhooks/standard-webhooks/tree/main/libraries"""
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    FORGES["gitlab"].verify(
        headers, b'{"test": 2432232314}', ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], 1_614_265_330.0
    )


def test_a_signed_webhook_is_believed_by_a_secret_in_base64_or_a_plain_one() -> None:
    forge = FORGES["gitlab"]
    forge.verify(signed(), b"{}", [SIGNING], NOW)
    forge.verify(signed(), b"{}", [SECRET, SIGNING], NOW)
    forge.verify(standard_signature(b"{}", key=SECRET.encode()), b"{}", [SIGNING, SECRET], NOW)


@pytest.mark.parametrize("off", [-301, 301, -86_400, 10**9])
def test_a_signature_is_good_for_five_minutes(off: int) -> None:
    with pytest.raises(Denied, match="5 minutes"):
        FORGES["gitlab"].verify(signed(), b"{}", [SIGNING], NOW + off)
    FORGES["gitlab"].verify(signed(), b"{}", [SIGNING], NOW + max(-300, min(off, 300)))


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_signature_is_whole_or_none_and_the_token_does_not_make_up_for_it(missing: str) -> None:
    headers = signed() | {"x-gitlab-token": SECRET}
    for broken in (headers | {missing: ""}, {name: each for name, each in headers.items() if name != missing}):
        with pytest.raises(Denied, match="go together"):
            FORGES["gitlab"].verify(broken, b"{}", [SECRET, SIGNING], NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook_id": "another"},
        {"webhook_timestamp": str(int(NOW) + 1)},
        {"webhook_timestamp": "soon"},
        {"webhook_timestamp": f"{int(NOW)}.0"},
        {"webhook_timestamp": f" {int(NOW)}"},
        {"webhook_timestamp": "9" * 5000},
        {"webhook_timestamp": "\u0661"},
        {"webhook_timestamp": "-1"},
        {"webhook_signature": "v1,"},
        {"webhook_signature": "v1"},
        {"webhook_signature": ","},
        {"webhook_signature": "v1,!!!"},
        {"webhook_signature": "v1,ÿ"},
        {"webhook_signature": "v1,\ud800"},
        {"webhook_signature": "v1," + base64.b64encode(b"short").decode()},
        {"webhook_signature": "v1," + base64.b64encode(bytes(32)).decode()},
        {"webhook_signature": "v1a," + standard_signature(b"{}")["webhook-signature"].removeprefix("v1,")},
        {"webhook_signature": standard_signature(b"{}")["webhook-signature"].removeprefix("v1,")},
        {"webhook_signature": hmac.new(KEY, b"{}", hashlib.sha256).hexdigest()},
        {"webhook_signature": "v1, " * 100_000},
    ],
)
def test_a_signature_covers_the_id_the_time_and_the_body(changes: dict[str, str]) -> None:
    with pytest.raises(Denied):
        FORGES["gitlab"].verify(signed(**changes) | {"x-gitlab-token": SECRET}, b"{}", [SECRET, SIGNING], NOW)


def test_a_signature_of_another_body_is_refused() -> None:
    with pytest.raises(Denied):
        FORGES["gitlab"].verify(signed(b"{}"), b"[]", [SIGNING], NOW)


def test_one_right_signature_of_several_is_enough() -> None:
    right = signed()["webhook-signature"]
    wrong = "v1," + base64.b64encode(bytes(32)).decode()
    for several in (f"{wrong} {right}", f"{right} {wrong}", f"v1a,AAAA {right}"):
        FORGES["gitlab"].verify(signed(webhook_signature=several), b"{}", [SIGNING], NOW)


def test_a_signing_secret_that_is_no_base64_signs_nothing() -> None:
    for secret in ("whsec_", "whsec_not base64!", "whsec_ü"):
        for key in (b"", secret.encode(), secret.removeprefix("whsec_").encode()):
            with pytest.raises(Denied):
                FORGES["gitlab"].verify(standard_signature(b"{}", key=key), b"{}", [secret], NOW)


@pytest.mark.parametrize("token", ["ÿ" * 20, "\ud800", SECRET + "\x00", "a" * 100_000, SECRET[:-1]])
def test_a_wrong_token_is_refused(token: str) -> None:
    with pytest.raises(Denied):
        FORGES["gitlab"].verify(GITLAB.headers("Push Hook", "1") | {"x-gitlab-token": token}, b"{}", [SECRET], NOW)
