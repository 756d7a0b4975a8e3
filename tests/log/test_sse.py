"""Encryption by the store: what is asked of S3 with each request, and what is refused before any."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from everturn.errors import Denied, Invalid
from everturn.log.objects import LARGE_BYTES, BlockingObjects, run
from everturn.log.stores import admit, locate
from everturn.settings import Settings
from everturn.testing import LoopbackS3

KEY = bytes(range(32))
OTHER_KEY = bytes(reversed(range(32)))
SSE = "x-amz-server-side-encryption"
KMS_KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"


class CustomerKeys:
    """WSGI middleware that keeps S3's rule for customer keys, and notes the headers of each request.

    "Specifying server-side encryption with customer-provided keys" in the S3 User Guide: an object that was written
    with a key is read with the same key only. The codes, 400 without a key and 403 with another one, are not in the
    guide; they are taken from how S3 is known to answer.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._keys: dict[str, str] = {}

    def __call__(self, app: Any) -> Any:
        def answer(request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            given = [(name[5:].lower().replace("_", "-"), value) for name, value in request.items()]
            headers = {name: value for name, value in given if SSE in name}
            method, path = request["REQUEST_METHOD"], request["PATH_INFO"]
            self.requests.append((method, headers))
            key, md5 = (headers.get(f"{SSE}-customer-{field}", "") for field in ("key", "key-md5"))
            if key and base64.b64encode(hashlib.md5(base64.b64decode(key)).digest()).decode() != md5:
                return refuse(start, "400 Bad Request", "InvalidArgument")
            if method == "PUT":
                self._keys[path] = key
            elif method == "GET" and self._keys.get(path, key) != key:
                refusal = ("403 Forbidden", "AccessDenied") if key else ("400 Bad Request", "InvalidRequest")
                return refuse(start, *refusal)
            return app(request, start)

        return answer

    def of(self, method: str) -> list[dict[str, str]]:
        return [headers for asked, headers in self.requests if asked == method]


def refuse(start: Callable[..., Any], status: str, code: str) -> Iterable[bytes]:
    start(status, [("Content-Type", "application/xml")])
    return [f"<Error><Code>{code}</Code></Error>".encode()]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[LoopbackS3, CustomerKeys]]:
    keys = CustomerKeys()
    with LoopbackS3.start(wrap=keys) as server:
        yield server, keys


@pytest.fixture
def seen(served: tuple[LoopbackS3, CustomerKeys], monkeypatch: pytest.MonkeyPatch) -> CustomerKeys:
    for name, value in served[0].environment.items():
        monkeypatch.setenv(name, value)
    served[1].requests.clear()
    return served[1]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_bytes(KEY)
    return file


def opened(bucket: str, **settings: Any) -> BlockingObjects:
    return locate(f"s3://{bucket}/prefix", Settings.load(**settings))


def use(objects: BlockingObjects) -> None:
    run(admit(objects, "scope", "s3://bucket"))
    run(objects.create("created", b"x"))
    run(objects.create("large", b"x" * (LARGE_BYTES + 1)))
    run(objects.put("put", b"x"))
    assert run(objects.get("created")) is not None
    assert len(run(objects.listing(""))) == 5
    run(objects.delete(["put"]))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {}),
        ({"s3_sse": "s3"}, {SSE: "AES256"}),
        ({"s3_sse": "kms"}, {SSE: "aws:kms"}),
        (
            {"s3_sse": "kms", "s3_sse_kms_key": KMS_KEY, "s3_sse_bucket_key": True},
            {SSE: "aws:kms", f"{SSE}-aws-kms-key-id": KMS_KEY, f"{SSE}-bucket-key-enabled": "true"},
        ),
        (
            {"s3_sse": "kms", "s3_sse_bucket_key": False},
            {SSE: "aws:kms", f"{SSE}-bucket-key-enabled": "false"},
        ),
        (
            {"s3_sse": "kms-dsse", "s3_sse_kms_key": KMS_KEY},
            {SSE: "aws:kms:dsse", f"{SSE}-aws-kms-key-id": KMS_KEY},
        ),
    ],
    ids=["unset", "s3", "kms", "kms with a key", "kms without bucket keys", "kms-dsse"],
)
def test_every_write_asks_for_the_encryption_that_was_set(
    served: tuple[LoopbackS3, CustomerKeys], seen: CustomerKeys, settings: dict[str, Any], expected: dict[str, str]
) -> None:
    bucket = served[0].fresh_bucket()
    seen.requests.clear()
    use(opened(bucket, **settings))
    assert len(seen.of("PUT")) == 6
    assert all(headers == expected for headers in seen.of("PUT"))
    assert not any(seen.of("GET"))
    kind = served[0].client().head_object(Bucket=bucket, Key="prefix/created").get("ServerSideEncryption")
    assert kind == expected.get(SSE)


def test_a_customer_key_goes_with_every_read_and_write(
    served: tuple[LoopbackS3, CustomerKeys], seen: CustomerKeys, key_file: Path
) -> None:
    bucket = served[0].fresh_bucket()
    seen.requests.clear()
    use(opened(bucket, s3_sse="c", s3_sse_customer_key_file=key_file))
    expected = {
        f"{SSE}-customer-algorithm": "AES256",
        f"{SSE}-customer-key": base64.b64encode(KEY).decode(),
        f"{SSE}-customer-key-md5": base64.b64encode(hashlib.md5(KEY).digest()).decode(),
    }
    assert all(headers == expected for headers in seen.of("PUT"))
    assert expected in seen.of("GET")


@pytest.mark.parametrize(
    "content", [KEY, base64.b64encode(KEY), base64.b64encode(KEY) + b"\n"], ids=["raw", "base64", "base64 line"]
)
def test_a_key_may_be_raw_or_in_base64(
    served: tuple[LoopbackS3, CustomerKeys], seen: CustomerKeys, key_file: Path, content: bytes
) -> None:
    bucket = served[0].fresh_bucket()
    run(opened(bucket, s3_sse="c", s3_sse_customer_key_file=key_file).create("a", b"x"))
    key_file.write_bytes(content)
    stored = run(opened(bucket, s3_sse="c", s3_sse_customer_key_file=key_file).get("a"))
    assert stored is not None
    assert stored.data == b"x"


def test_a_missing_or_wrong_key_is_told(
    served: tuple[LoopbackS3, CustomerKeys], seen: CustomerKeys, key_file: Path
) -> None:
    bucket = served[0].fresh_bucket()
    run(opened(bucket, s3_sse="c", s3_sse_customer_key_file=key_file).create("a", b"x"))
    with pytest.raises(Invalid, match="status 400 InvalidRequest") as without:
        run(opened(bucket).get("a"))
    assert "s3_" in without.value.hint
    key_file.write_bytes(OTHER_KEY)
    with pytest.raises(Denied) as wrong:
        run(opened(bucket, s3_sse="c", s3_sse_customer_key_file=key_file).get("a"))
    assert "the key" in wrong.value.hint
    for error in (without.value, wrong.value):
        assert base64.b64encode(KEY).decode() not in str(error)
        assert base64.b64encode(OTHER_KEY).decode() not in str(error)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"s3_sse_kms_key": KMS_KEY}, "s3_sse_kms_key is set, but s3_sse is not kms or kms-dsse"),
        ({"s3_sse": "s3", "s3_sse_kms_key": KMS_KEY}, "s3_sse_kms_key is set"),
        ({"s3_sse": "c", "s3_sse_kms_key": KMS_KEY}, "s3_sse_kms_key is set"),
        ({"s3_sse_bucket_key": True}, "s3_sse_bucket_key is set, but s3_sse is not kms"),
        ({"s3_sse": "kms-dsse", "s3_sse_bucket_key": True}, "s3_sse_bucket_key is set"),
        ({"s3_sse_customer_key_file": "key"}, "s3_sse_customer_key_file is set, but s3_sse is not c"),
        ({"s3_sse": "kms", "s3_sse_customer_key_file": "key"}, "s3_sse_customer_key_file is set"),
        ({"s3_sse": "c"}, "there is no key"),
        ({"s3_sse": "c", "s3_sse_customer_key_file": "/nowhere/key"}, "cannot be read from /nowhere/key"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_before_any_request(
    seen: CustomerKeys, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(Invalid, match=message):
        opened("bucket", **settings)
    assert seen.requests == []


@pytest.mark.parametrize(
    "content",
    [b"", KEY[:31], KEY + b"\n", b"not base64 at all", base64.b64encode(KEY[:16])],
    ids=["empty", "short", "long", "text", "short in base64"],
)
def test_a_file_that_holds_no_key_is_refused_and_not_quoted(key_file: Path, content: bytes) -> None:
    key_file.write_bytes(content)
    with pytest.raises(Invalid, match="does not hold a key of 32 bytes") as refusal:
        opened("bucket", s3_sse="c", s3_sse_customer_key_file=key_file)
    assert "not base64" not in str(refusal.value)


def test_a_customer_key_is_not_sent_over_plain_http(key_file: Path) -> None:
    with pytest.raises(Invalid, match="for all to read"):
        opened("b", s3_sse="c", s3_sse_customer_key_file=key_file, aws_endpoint_url="http://gateway.example:9000")


def test_an_unknown_kind_of_encryption_is_refused_by_name() -> None:
    with pytest.raises(Invalid, match="the setting s3_sse is wrong"):
        Settings.load(s3_sse="aes")
