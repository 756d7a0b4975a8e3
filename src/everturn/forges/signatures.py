"""Whether a webhook was signed with a secret of ours. Every wrong signature takes the same time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence

from everturn.errors import Denied
from everturn.forges.base import Headers

TOLERANCE_S = 300  # what the specification of Standard Webhooks and its libraries allow
SYMMETRIC_PREFIX = "whsec_"

_HEX = re.compile(r"[0-9a-f]{64}")
_SECONDS = re.compile(r"[0-9]{1,12}")
_DIGEST_BYTES = 32
_SIGNATURES = 16  # at most; two are sent while a secret is exchanged
_HINT = "the forge and the setting webhook_secrets have to have the same secret; see docs/webhooks.md"


def denied(message: str) -> Denied:
    """Return the error for a webhook that nobody vouches for, with `message` as its sentence."""
    return Denied(message, hint=_HINT)


def check_hex(header: str, given: str | None, content: bytes, secrets: Sequence[str]) -> None:
    """Return if a signature in hexadecimal digits is right: HMAC-SHA256 with one of the secrets.

    Args:
        header: The name of the header, for people.
        given: The digits, in small letters; `None`: there are none.
        content: What is signed.
        secrets: The secrets; empty ones count for nothing.

    Raises:
        Denied: There is no secret, it is missing, is no such signature, or is not right.
    """
    if not given:
        raise denied(f"the webhook is not signed: {header} is missing or empty")
    if not _HEX.fullmatch(given):
        raise denied(f"the webhook's signature is none: {header} has to have 64 hexadecimal digits in small letters")
    made = [hmac.digest(each.encode(), content, "sha256") for each in _usable(secrets)]
    if not _any_equal(made, [bytes.fromhex(given)]):
        raise denied("the webhook's signature is wrong")


def check_token(header: str, given: str | None, secrets: Sequence[str]) -> None:
    """Return if a header has one of the secrets itself.

    Args:
        header: The name of the header, for people.
        given: What it has; `None`: it is not there.
        secrets: The secrets; empty ones count for nothing.

    Raises:
        Denied: There is no secret, or it is missing, or is none of them.
    """
    if not given:
        raise denied(f"the webhook is not signed: {header} is missing or empty")
    # Digests are of one length, so that not even the length of a secret can be told by the time.
    made = [hashlib.sha256(each.encode()).digest() for each in _usable(secrets)]
    if not _any_equal(made, [hashlib.sha256(given.encode(errors="surrogatepass")).digest()]):
        raise denied(f"the webhook's {header} is wrong")


def check_standard(headers: Headers, body: bytes, secrets: Sequence[str], now: float) -> None:
    """Return if a webhook is signed as the specification of Standard Webhooks says.

    See https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md: what is signed
    is `<webhook-id>.<webhook-timestamp>.<body>`, and `webhook-signature` has one or several `v1,<base64>`.

    Args:
        headers: Those of the request.
        body: Its body.
        secrets: The secrets. After `whsec_` there is the key in base64; others are the key themselves.
        now: The time of day, in seconds since the Unix epoch.

    Raises:
        Denied: There is no secret, one of the three headers is missing, the timestamp is too far from now, or no
            signature is right.
    """
    marked, seconds, signatures = (
        headers.get(name, "") for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
    )
    if not (marked and seconds and signatures):
        raise denied("the webhook's signature is not whole: webhook-id, -timestamp and -signature go together")
    if not _SECONDS.fullmatch(seconds):
        raise denied("the webhook's timestamp is no number of seconds")
    if not abs(now - int(seconds)) <= TOLERANCE_S:
        raise denied(f"the webhook was signed more than {TOLERANCE_S // 60} minutes ago, or in the future")
    keys = [key for key in map(_key_of, _usable(secrets)) if key]
    content = b".".join((marked.encode(errors="surrogatepass"), seconds.encode(), body))
    made = [hmac.digest(key, content, "sha256") for key in keys]
    if not _any_equal(made, _decoded(signatures)):
        raise denied("the webhook's signature is wrong")


def _usable(secrets: Sequence[str]) -> list[str]:
    found = [each for each in secrets if each]
    if not found:
        raise denied("there is no secret for webhooks of this forge")
    return found


def _any_equal(made: Iterable[bytes], given: Sequence[bytes]) -> bool:
    found = False
    for mine in made:
        for theirs in given:
            found |= hmac.compare_digest(mine, theirs)  # all of them: which one is right takes no other time
    return found


def _decoded(signatures: str) -> list[bytes]:
    digests = (
        _from_base64(each.removeprefix("v1,")) for each in signatures.split(" ")[:_SIGNATURES] if each[:3] == "v1,"
    )
    return [each for each in digests if len(each) == _DIGEST_BYTES]


def _key_of(secret: str) -> bytes:
    if secret.startswith(SYMMETRIC_PREFIX):
        return _from_base64(secret.removeprefix(SYMMETRIC_PREFIX))
    return secret.encode()


def _from_base64(text: str) -> bytes:
    """Return what a text stands for; nothing if it is no base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
