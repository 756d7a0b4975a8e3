"""The program that git starts to get credentials: it asks the worker, and knows nothing itself.

git starts it for every command that meets a host which wants credentials, so it imports little, and nothing of
Everturn: `python -I -S credential_helper.py get|store|erase`. Git's request is on its input, the answer goes to its
output, and why there is none to its errors. Beside the request the worker is told what decides whom the answer would
reach: git's own settings for this URL, by git's own rules for which of several counts.
"""

from __future__ import annotations

import json
import os
import socket
import sys

SOCKET = "GIT_EVERTURN_SOCKET"
KEY = "GIT_EVERTURN_KEY"

# What decides whether git can be sure of whom it talks to, and whether it writes down what it says.
WATCHED = (
    "GIT_SSL_NO_VERIFY",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "GIT_SSL_CIPHER_LIST",
    "GIT_TRACE_REDACT",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NIX_SSL_CERT_FILE",
    "http_proxy",
    "all_proxy",
    "ALL_PROXY",
)
ANSWER_LIMIT_BYTES = 1 << 20
ANSWER_TIMEOUT_S = 300.0  # a source may take its time

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")


def main() -> int:
    """Answer git. Returns the exit code, which git does not look at."""
    action = sys.argv[1] if len(sys.argv) == 2 else ""
    path, key = os.environ.get(SOCKET), os.environ.get(KEY)
    if action not in {"get", "erase"} or not path or not key:
        return 0
    attributes = read_attributes(sys.stdin.buffer.read())
    request: dict[str, object] = {"key": key, "action": action, "attributes": attributes}
    if action == "get":
        request["settings"] = settings_for(dict(attributes))
        request["environment"] = {name: os.environ[name] for name in WATCHED if name in os.environ}
    try:
        answer = ask(path, request)
    except (OSError, ValueError):
        complain("the worker does not answer; its run may be over")
        return 1
    if "password" in answer:
        sys.stdout.write(f"username={answer['username']}\npassword={answer['password']}\n")
        sys.stdout.flush()
    elif "reason" in answer:
        complain(answer["reason"])
    return 0


def read_attributes(data: bytes) -> list[tuple[str, str]]:
    """Return the lines of git's request, up to the first empty one, as pairs. Only a line feed ends a line."""
    pairs = []
    for line in data.split(b"\n"):
        if not line:
            break
        name, _, value = line.partition(b"=")
        pairs.append((name.decode(errors="replace"), value.decode(errors="replace")))
    return pairs


def settings_for(attributes: dict[str, str]) -> list[dict[str, str]] | None:
    """Return what git's settings `http.*` are for what it asks, with the user that it names and without.

    A user may come from the URL, which counts for these settings, or from a setting itself, which does not.

    Returns:
        `None` if that cannot be found out.
    """
    scheme, host = attributes.get("protocol"), attributes.get("host")
    if scheme not in {"http", "https"} or not host:
        return None
    rest = f"{host}/{quote(attributes.get('path', ''))}"
    user = quote(attributes.get("username", "")).replace("/", "%2F")
    found = []
    for url in [f"{scheme}://{rest}"] + ([f"{scheme}://{user}@{rest}"] if user else []):
        settings = read_config("--get-urlmatch", "http", url)
        if settings is None:
            return None
        found.append(settings)
    if scheme == "http":  # a remote's own proxy goes before that of its URL
        proxies = read_config("--get-regexp", r"^remote\..*\.proxy$")
        if proxies is None:
            return None
        found.append(proxies)
    return found


def read_config(*arguments: str) -> dict[str, str] | None:
    """Return what `git config` prints, by key; `None` if it fails. A key without a value is `true`."""
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as output:
        try:
            pid = os.posix_spawnp(
                "git",
                ["git", "config", "-z", *arguments],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, write_end, 1),
                ],
            )
        except OSError:
            return None
        finally:
            os.close(write_end)
        data = output.read().decode(errors="replace")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code not in (0, 1):  # 1: there is nothing
        return None
    pairs = [record.partition("\n") for record in data.split("\0") if record]
    return {key: value if separator else "true" for key, separator, value in pairs}


def ask(path: str, request: dict[str, object]) -> dict[str, str]:
    """Send a request to the worker and return its answer.

    Raises:
        OSError: It cannot be reached, or takes too long.
        ValueError: It did not answer.
    """
    os.chdir(os.path.dirname(path))  # a socket's address has to be short, its folder need not be
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_TIMEOUT_S)
        connection.connect(os.path.basename(path))
        connection.sendall(json.dumps(request).encode() + b"\n")
        data = b""
        while piece := connection.recv(65536):
            data += piece
            if len(data) > ANSWER_LIMIT_BYTES:
                raise ValueError("too long")
    answer = json.loads(data)
    if not isinstance(answer, dict):
        raise ValueError("no answer")  # noqa: TRY004
    return answer


def quote(text: str) -> str:
    """Return a text as it may stand in a URL."""
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in text.encode())


def complain(reason: str) -> None:
    """Say why there are no credentials; git passes it on to whoever called it."""
    sys.stderr.write(f"everturn: no git credentials: {reason}\n")


if __name__ == "__main__":
    sys.exit(main())
