"""What a webhook brings, read with no trust in its form: whatever comes, there is a value or one clear sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NoReturn

import orjson

from everturn.errors import Invalid
from everturn.forges.base import Headers

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
HINT = "see docs/webhooks.md for what forges send, and how to set up theirs"

_FIELD = b"payload="
_SHOWN = 40  # characters of what a stranger sent
_URL_LENGTH = 2048
_BRANCH_BYTES = 1024
_DELIVERY_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_WORD = re.compile(r"[a-z0-9_]{1,64}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_CLIMBS = re.compile(r"(^|[/:\\])\.\.?([/\\]|$)")
_NO_BRANCH = re.compile(r"\.\.|@\{|[ ~^:?*\[\\]|^/|/$|//|(^|/)\.|\.$|\.lock(/|$)|^@$")


def invalid(message: str) -> Invalid:
    """Return the error for a webhook that is none, with `message` as its sentence."""
    return Invalid(message, hint=HINT)


def shown(text: str) -> str:
    """Return as much of what a stranger sent as can be shown: the beginning, and nothing that cannot be printed."""
    piece = "".join(each if each.isascii() and each.isprintable() else "?" for each in text[:_SHOWN])
    return f"{piece}…" if len(text) > _SHOWN else piece


def content_type_of(headers: Headers) -> str:
    """Return the content type, in small letters and without parameters; empty if there is none."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def form_payload(body: bytes) -> bytes | None:
    """Return what the one field of a form holds that forges send; `None`: it is another form, or none."""
    if not body.startswith(_FIELD) or b"&" in body:
        return None
    # Whoever may send no webhook can have this done, so it is done by what takes no time: the escapes of Python.
    escaped = body[len(_FIELD) :].replace(b"+", b" ").replace(b"\\", b"\\\\").replace(b"%", b"\\x")
    try:
        return escaped.decode("unicode_escape").encode("latin-1")
    except UnicodeDecodeError:
        return None


def delivery_id_of(headers: Headers, names: Iterable[str]) -> str:
    """Return the id of a delivery.

    Args:
        headers: Those of the request.
        names: The headers that may have it; the first one that is there counts.

    Raises:
        Invalid: None is there, or it has a character that no forge gives one, or more than 128.
    """
    names = list(names)
    found = next((headers[name] for name in names if name in headers), None)
    if found is None:
        raise invalid(f"the webhook has no delivery id: there is no header {names[0]}")
    if not _DELIVERY_ID.fullmatch(found):
        raise invalid("the delivery id has characters that no forge gives one, or is longer than 128")
    return found


def unknown_event(forge: str, event: str) -> NoReturn:
    """Refuse an event that a forge does not have."""
    if not event:
        raise invalid("the webhook does not say what happened: its event is missing")
    raise invalid(f"{forge} has no event '{shown(event)}'")


class Fields:
    """One object of a payload. Each method returns a field as the type that is needed, or raises `Invalid`.

    Args:
        values: What it holds.
        where: What to call it: `pull_request.head`; empty for the payload itself.
    """

    def __init__(self, values: dict[str, Any], where: str = "") -> None:
        self._values = values
        self._where = where

    @classmethod
    def parse(cls, body: bytes) -> Fields:
        """Return the JSON object that is the payload.

        Args:
            body: The JSON.

        Raises:
            Invalid: It is empty, no JSON in UTF-8, nested too deeply, or no object.
        """
        if not body:
            raise invalid("the webhook's body is empty")
        try:
            values = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise invalid(f"the webhook's body is no JSON that can be read (at character {error.pos})") from None
        if not isinstance(values, dict):
            raise invalid("the webhook's body is no JSON object")
        return cls(values)

    def has(self, name: str) -> bool:
        """Return whether a field is there and is not null."""
        return self._values.get(name) is not None

    def says(self, name: str, value: str) -> bool:
        """Return whether a field is there and is this text."""
        return bool(self._values.get(name) == value)

    def text(self, name: str) -> str:
        """Return a field that is a text, of whatever characters."""
        value = self._needed(name)
        if not isinstance(value, str):
            raise invalid(f"{self._called(name)} is no text")
        return value

    def word(self, name: str) -> str:
        """Return a field that is one word of a forge's own, such as an action: small letters, digits, underscores."""
        value = self.text(name)
        if not _WORD.fullmatch(value):
            raise invalid(f"{self._called(name)} is no word that a forge would say")
        return value

    def number(self, name: str) -> str:
        """Return a field that is the number of an issue or a change, as decimal digits."""
        value = self._needed(name)
        if type(value) is not int or not 1 <= value < 1 << 63:
            raise invalid(f"{self._called(name)} is no whole number from 1 on")
        return str(value)

    def branch(self, name: str) -> str:
        """Return a field that is the name of a branch, without `refs/heads/`."""
        return self.as_branch(name, self.text(name))

    def as_branch(self, name: str, branch: str) -> str:
        """Return `branch`, which is or is a part of the field `name`, if a branch may be called so."""
        printable = branch.isprintable() and not _NO_BRANCH.search(branch)  # so there is no unpaired surrogate
        if not branch or not printable or len(branch.encode()) > _BRANCH_BYTES:
            raise invalid(f"{self._called(name)} is no name that git gives a branch")
        return branch

    def commit(self, name: str) -> str:
        """Return a field that is the hash of a commit, in full."""
        value = self.text(name)
        if not _COMMIT.fullmatch(value):
            raise invalid(f"{self._called(name)} is no hash of a commit")
        return value

    def object(self, name: str) -> Fields:
        """Return a field that is an object."""
        value = self._needed(name)
        if not isinstance(value, dict):
            raise invalid(f"{self._called(name)} is no object")
        return Fields(value, self._called(name))

    def object_or_null(self, name: str) -> Fields | None:
        """Return a field that is an object, or is null: it has to be there."""
        if name in self._values and self._values[name] is None:
            return None
        return self.object(name)

    def urls(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the URLs of a repository, each once.

        Args:
            names: The fields that may have them.

        Raises:
            Invalid: There is none at all, or one that cannot be a repository's.
        """
        found = dict.fromkeys(self._url(name) for name in names if self._values.get(name) not in (None, ""))
        if not found:
            raise invalid(f"{self._where or 'the payload'} names no URL of the repository")
        return tuple(found)

    def _url(self, name: str) -> str:
        value = self.text(name)
        if not value.isprintable() or " " in value or len(value) > _URL_LENGTH or _CLIMBS.search(value):
            raise invalid(f"{self._called(name)} is no URL of a repository")
        return value

    def _needed(self, name: str) -> Any:
        value = self._values.get(name)
        if value is None:
            raise invalid(f"{self._called(name)} is missing")
        return value

    def _called(self, name: str) -> str:
        return f"{self._where}.{name}" if self._where else name
