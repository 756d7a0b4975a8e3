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

# Settings of git's, given by its environment as all the others: where the worker is, and that we may ask.
SOCKET = "everturn.credentialsocket"
KEY = "everturn.credentialkey"

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
NAMES = "credentialsocket|credentialkey|proxy|helper"
ANSWER_LIMIT_BYTES = 1 << 20
ANSWER_TIMEOUT_S = 300.0  # a source may take its time

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")


def main() -> int:
    """Answer git. Returns the exit code; git goes by the answer alone."""
    action = sys.argv[1] if len(sys.argv) == 2 else ""
    if action not in {"get", "erase"}:
        return 0
    attributes = read_attributes(sys.stdin.buffer.read())
    settings = read_config("--get-regexp", rf"^(everturn|remote\..*|credential(\..*)?)\.({NAMES})$")
    if settings is None:
        return complain("git cannot be asked how it is set up")
    address = dict(settings)
    if SOCKET not in address or KEY not in address:
        return complain("no worker is named")
    request: dict[str, object] = {"key": address[KEY], "action": action, "attributes": attributes}
    if action == "get":
        request["settings"] = [
            [pair for pair in settings if pair[0] not in (SOCKET, KEY)],
            *settings_for(dict(attributes)),
        ]
        request["environment"] = {name: os.environ[name] for name in WATCHED if name in os.environ}
    try:
        answer = ask(address[SOCKET], request)
    except (OSError, ValueError):
        return complain("the worker does not answer; its run may be over")
    if "password" in answer:
        sys.stdout.write(f"username={answer['username']}\npassword={answer['password']}\n")
    elif "reason" in answer:
        return complain(answer["reason"])
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


def settings_for(attributes: dict[str, str]) -> list[list[tuple[str, str]] | None]:
    """Return git's settings `http.*` that count for what it asks, with the user that it names and without.

    A user may come from the URL, which counts for these settings, or from a setting itself, which does not. `None`
    stands for what cannot be found out.
    """
    scheme, host = attributes.get("protocol"), attributes.get("host")
    if scheme not in {"http", "https"} or not host:
        return [None]
    rest = f"{host}/{quote(attributes.get('path', ''))}"
    user = quote(attributes.get("username", "")).replace("/", "%2F")
    urls = [f"{scheme}://{rest}"] + ([f"{scheme}://{user}@{rest}"] if user else [])
    return [read_config("--get-urlmatch", "http", url) for url in urls]


def read_config(*arguments: str) -> list[tuple[str, str]] | None:
    """Return what `git config` prints, as keys and values; `None` if it fails. A key without a value is `true`."""
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
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
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
    return [(key, value if separator else "true") for key, separator, value in pairs]


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


def complain(reason: str) -> int:
    """Say why there are no credentials; git passes it on to whoever called it. Returns the exit code."""
    sys.stderr.write(f"everturn: no git credentials: {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
