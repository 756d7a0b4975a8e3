"""What obstore raises, as errors of ours. It tells many causes apart in its text only."""

from __future__ import annotations

import re

from obstore import exceptions

from everturn.errors import Corrupt, Denied, EverturnError, Invalid, NotFound, Unavailable

_STATUS = re.compile(r"non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>|\(code: (\w+)\)")  # the second is for one of many deletions
_NO_BUCKET = "<Code>NoSuchBucket</Code>"
_NO_ROLE = "169.254.169.254"
_OS_DENIED = "os error 13"
_DENIED = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError)
_DENIED_CODES = (
    "AccessDenied",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
)
_DENIED_STATUSES = ("401", "403")
_REFUSED_STATUSES = ("301", "307", "400", "405", "413", "501")
_SLOW_DOWN_CODES = ("SlowDown", "TooManyRequests", "RequestLimitExceeded", "Throttling", "ThrottlingException")
_SLOW_DOWN_STATUSES = ("429", "503")


def names_no_bucket(error: Exception) -> bool:
    """Tell whether what was not found is the bucket, rather than an object in it."""
    return _NO_BUCKET in str(error)


def asks_to_slow_down(error: Exception) -> bool:
    """Tell whether the store refused a request because there were too many."""
    status, code = _answer(str(error))
    return code in _SLOW_DOWN_CODES or status in _SLOW_DOWN_STATUSES


def translate(error: Exception, act: str, label: str) -> EverturnError:
    """Return the error of ours that says what went wrong.

    Args:
        error: What was raised.
        act: What was tried: read, write, list, delete.
        label: The store's URL.
    """
    text = str(error)
    if _NO_BUCKET in text:
        return NotFound(
            f"there is no such bucket: {label}",
            hint="create it, or check the name, AWS_REGION and AWS_ENDPOINT_URL",
        )
    if isinstance(error, exceptions.InvalidPathError):
        return Corrupt(
            f"an object below {label} has a name that cannot be listed: {_reason(text)}",
            hint="it is not Everturn's; delete or rename it with another tool",
        )
    if asks_to_slow_down(error):  # whoever was asked: the store, or the machine's role for its credentials
        return Unavailable(
            f"could not {act} in {label}: the store asks to slow down ({' '.join(filter(None, _answer(text)))})",
            hint="it is safe to try again; fewer workers at once put less load on the store",
        )
    return _denied(error, act, label) or _refused(text, act, label) or _unavailable(text, act, label)


def _denied(error: Exception, act: str, label: str) -> Denied | None:
    text = str(error)
    status, code = _answer(text)
    if _NO_ROLE in text and not status.startswith("5"):
        return Denied(
            f"no credentials were found for {label}",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine a role",
        )
    if isinstance(error, _DENIED) or _OS_DENIED in text or code in _DENIED_CODES or status in _DENIED_STATUSES:
        return Denied(
            f"not allowed to {act} in {label}: {code or (f'status {status}' if status else _reason(text))}",
            hint="check the credentials, what they may do with this bucket and prefix and, with s3_sse = c, the key",
        )
    return None


def _refused(text: str, act: str, label: str) -> Invalid | None:
    status, code = _answer(text)
    if status not in _REFUSED_STATUSES:
        return None
    return Invalid(
        f"the store refuses to {act} in {label}: status {status} {code}".rstrip(),
        hint="check AWS_REGION, AWS_ENDPOINT_URL, the bucket's name and the settings that begin with s3_",
    )


def _unavailable(text: str, act: str, label: str) -> Unavailable:
    return Unavailable(
        f"could not {act} in {label}: {_reason(text)}",
        hint="check that the store can be reached; it is safe to try again",
    )


def _answer(text: str) -> tuple[str, str]:
    """Return the HTTP status and the S3 error code, as far as they are in the text."""
    status, code = _STATUS.search(text), _CODE.search(text)
    return status[1] if status else "", (code[1] or code[2]) if code else ""


def _reason(text: str, limit: int = 300) -> str:
    line = text.partition("\n\nDebug source")[0]
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line[:limit])
    return shown if len(line) <= limit else shown + "…"
