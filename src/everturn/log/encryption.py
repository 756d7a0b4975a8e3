"""Encryption before anything leaves this machine (docs/format.md, section 11).

It wraps the store as the log sees it: everything that says something about a session is sealed with AES-256-GCM,
names and sizes are not. The log above knows nothing of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from everturn.clock import Ids
from everturn.errors import Corrupt, Denied, EverturnError, Invalid, Unavailable
from everturn.log.frames import corrupt
from everturn.log.objects import Item, Objects, Stored

MAGIC = 0x184D2A5D
CIPHER = "A256GCM"
KEY_BYTES = 32
NONCE_BYTES = 12
MAX_HEADER_BYTES = 4096
NAME_BYTES = 200  # of a key's name as JSON: readers tell fences and truncations by how small they are
PLAIN = ("format.json", "probes/", "holds/")

_START = struct.Struct("<II")
_HINT = "give the key it was written with in the setting encryption_key_file, or as keys="


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the name under which it is found again.

    Attributes:
        name: Stands in every object that is written with it. Not secret. Up to 100 characters, fewer if they are not
            plain letters.
        secret: 32 bytes.
    """

    name: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise Invalid(
                f"the key {self.name!r} has {len(self.secret)} bytes", hint=f"a key is {KEY_BYTES} random bytes"
            )
        too_long = len(self.name) > 100 or len(json.dumps(self.name)) > NAME_BYTES
        if not self.name or not self.name.isprintable() or too_long:
            raise Invalid(
                f"{self.name!r} is no name for a key",
                hint="use up to 100 printable characters, or up to 16 if they are not plain letters",
            )

    @property
    def fingerprint(self) -> str:
        """Eight digits that tell a wrong key from a damaged object."""
        return hashlib.sha256(b"everturn key " + self.secret).hexdigest()[:8]


Keys = Callable[[str | None], Key]
"""Returns the key of a name, or with `None` the one to write with. Raises `KeyError` if there is none."""


class KeyFile:
    """Keys in a file: one a line, its name and 32 bytes in base64. The first one is written with.

    To rotate, put a new line first and leave the old ones as long as something is written with them. The file is
    read again when it has changed. While it cannot be read, because somebody is just writing it, the keys that were
    in it before go on.

    Args:
        path: The file.

    Raises:
        Invalid: The file cannot be read, or a line is not as it should be.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._keys: list[Key] = []
        self._refresh()

    def __call__(self, name: str | None) -> Key:
        """See `Keys`."""
        unread: Invalid | None = None
        try:
            self._refresh()
        except Invalid as error:
            unread = error
        for key in self._keys:
            if name in (None, key.name):
                return key
        raise unread or KeyError(name)

    def _refresh(self) -> None:
        try:
            state = self._path.stat()
            if self._seen == (state.st_mtime_ns, state.st_size):
                return
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise Invalid(f"the key file {self._path} cannot be read: {error}", hint="check the path") from None
        wanted = [line.split() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not wanted:
            raise Invalid(
                f"the key file {self._path} holds no key", hint="one a line: a name, and 32 bytes in base64"
            )
        self._keys = [self._key(words) for words in wanted]
        self._seen = (state.st_mtime_ns, state.st_size)

    def _key(self, words: Sequence[str]) -> Key:
        try:
            name, secret = words
            return Key(name, base64.b64decode(secret, validate=True))
        except (ValueError, binascii.Error):
            raise Invalid(
                f"a line of the key file {self._path} is not a name and a key in base64",
                hint="make a key with: openssl rand -base64 32",
            ) from None


class SealedObjects:
    """`Objects` whose contents are encrypted on their way out and decrypted on their way in.

    What was written before encryption was turned on is read as it is. Without keys nothing is encrypted, and what is
    encrypted cannot be read: `Denied`.

    Args:
        inner: The store.
        keys: Where keys come from, or `None`.
        ids: For nonces. It must draw from the operating system: a nonce must never come twice.
    """

    def __init__(self, inner: Objects, keys: Keys | None, ids: Ids) -> None:
        self._inner = inner
        self._keys = keys
        self._ids = ids

    async def create(self, key: str, data: bytes) -> bool:
        """See `Objects.create`."""
        return await self._inner.create(key, self._seal(key, data))

    async def put(self, key: str, data: bytes) -> None:
        """See `Objects.put`."""
        await self._inner.put(key, self._seal(key, data))

    async def get(self, key: str) -> Stored | None:
        """See `Objects.get`."""
        return self._opened(key, await self._inner.get(key))

    async def get_many(self, keys: Sequence[str]) -> list[Stored | None]:
        """See `Objects.get_many`."""
        found = await self._inner.get_many(keys)
        return [self._opened(key, stored) for key, stored in zip(keys, found, strict=True)]

    async def listing(self, folder: str) -> list[Item]:
        """See `Objects.listing`. Sizes are those of what is stored."""
        return await self._inner.listing(folder)

    async def list_folders(self, folder: str) -> list[str]:
        """See `Objects.list_folders`."""
        return await self._inner.list_folders(folder)

    async def delete(self, keys: Sequence[str]) -> None:
        """See `Objects.delete`."""
        await self._inner.delete(keys)

    async def wait(self, seconds: float) -> None:
        """See `Objects.wait`."""
        await self._inner.wait(seconds)

    def _seal(self, name: str, data: bytes) -> bytes:
        if self._keys is None or name.startswith(PLAIN):
            return data
        key = _ask(self._keys, None)
        nonce = self._ids.random_bytes(NONCE_BYTES)
        header = {"v": 1, "cipher": CIPHER, "key": key.name, "print": key.fingerprint, "nonce": nonce.hex()}
        content = json.dumps(header, separators=(",", ":")).encode() + b"\n"
        sealed = AESGCM(key.secret).encrypt(nonce, data, _bound_to(content, name))
        return _START.pack(MAGIC, len(content)) + content + sealed

    def _opened(self, name: str, stored: Stored | None) -> Stored | None:
        if stored is None or not _is_sealed(stored.data):
            return stored
        return Stored(self._unseal(name, stored.data), stored.modified_ms)

    def _unseal(self, name: str, data: bytes) -> bytes:
        end = _START.size + _START.unpack_from(data)[1]
        content = data[_START.size : end]
        try:
            header = json.loads(content)
            cipher, key_name = str(header["cipher"]), str(header["key"])
            fingerprint, nonce = str(header["print"]), bytes.fromhex(header["nonce"])
        except (ValueError, LookupError, TypeError, RecursionError):
            raise _damaged(name) from None
        if len(content) > MAX_HEADER_BYTES or cipher != CIPHER or len(nonce) != NONCE_BYTES:
            raise _damaged(name)
        key = self._key(name, key_name)
        if key.fingerprint != fingerprint:
            raise Denied(f"{name} is encrypted with another key of the name {key_name!r}", hint=_HINT)
        try:
            return AESGCM(key.secret).decrypt(nonce, data[end:], _bound_to(content, name))
        except InvalidTag:
            raise _damaged(name) from None

    def _key(self, name: str, key_name: str) -> Key:
        if self._keys is None:
            raise Denied(f"{name} is encrypted with the key {key_name!r}, and no key is set", hint=_HINT)
        try:
            return _ask(self._keys, key_name)
        except Denied:
            raise Denied(
                f"{name} is encrypted with the key {key_name!r}, which is not among ours", hint=_HINT
            ) from None


def as_stored(objects: Objects) -> Objects:
    """Return the same objects as they lie in the store: encrypted ones stay encrypted."""
    return objects._inner if isinstance(objects, SealedObjects) else objects


def _ask(keys: Keys, key_name: str | None) -> Key:
    """Ask for a key. Whatever goes wrong in somebody else's function becomes an error of ours."""
    try:
        return keys(key_name)
    except EverturnError:
        raise
    except KeyError:
        raise Denied("there is no key to encrypt with", hint=_HINT) from None
    except Exception as error:
        raise Unavailable(
            f"the keys could not be had: {error!r}", hint="see what the function given as keys= does"
        ) from error


def _is_sealed(data: bytes) -> bool:
    return len(data) >= _START.size and _START.unpack_from(data)[0] == MAGIC


def _bound_to(content: bytes, name: str) -> bytes:
    """Return what is authenticated along with the data: an object that was moved or swapped is refused."""
    return content + name.encode()


def _damaged(name: str) -> Corrupt:
    return corrupt(f"{name} is damaged: it cannot be decrypted, though the key is the right one")
