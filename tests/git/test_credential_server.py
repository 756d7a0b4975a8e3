"""What the socket answers to whom, and what the program says that git starts."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog

from everturn.clock import ManualClock
from everturn.errors import Denied, Invalid
from everturn.git import credential_helper
from everturn.git.credential_helper import KEY, SOCKET
from everturn.git.credential_server import AT_ONCE, CredentialServer
from everturn.git.credentials import Credentials, from_env
from everturn.git.runner import with_config
from git.minting import Minting
from polling import wait_until

FORGE = "https://git.example"
SECRET = "s3cr3t-t0ken"


MakeServer = Callable[..., CredentialServer]


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    made: list[CredentialServer] = []

    def make(credentials: Credentials | None = None, folder: Path | None = None, **more: Any) -> CredentialServer:
        given = Credentials({FORGE: lambda _: SECRET}, ManualClock()) if credentials is None else credentials
        made.append(CredentialServer(given, folder or tmp_path / "private", **more))
        return made[-1]

    yield make
    for server in made:
        server.close()


def request(**more: Any) -> dict[str, Any]:
    attributes = [["protocol", "https"], ["host", "git.example"], ["path", "team/shop.git"]]
    return {"action": "get", "attributes": attributes, "settings": [[]], "environment": {}, **more}


def send(server: CredentialServer, data: bytes) -> bytes:
    """Send bytes to a server and return what comes until it hangs up."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(server.config()[SOCKET])
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
        return answer


def ask(server: CredentialServer, **more: Any) -> dict[str, str]:
    message = {**request(**more), "key": server.config()[KEY]}
    answer: dict[str, str] = json.loads(send(server, json.dumps(message).encode() + b"\n"))
    return answer


def test_whoever_has_the_key_gets_what_the_table_says(make_server: MakeServer) -> None:
    assert ask(make_server()) == {"username": "x-access-token", "password": SECRET}


@pytest.mark.parametrize("key", [None, "", "x" * 64, 7, [], "\ud800", "é"])
def test_whoever_has_not_gets_nothing(make_server: MakeServer, key: object) -> None:
    server = make_server()
    assert send(server, json.dumps(request(key=key)).encode() + b"\n") == b""
    assert ask(server)["password"] == SECRET


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"{", b"7\n", b"[]\n", b"{}\n", b"\xff\n", b"[" * 60_000 + b"\n", b"x" * 200_000, b"nul\0l\n"],
)
def test_a_bad_client_harms_nobody(make_server: MakeServer, data: bytes) -> None:
    server = make_server()
    assert send(server, data) == b""
    assert ask(server)["password"] == SECRET


@pytest.mark.parametrize(
    "more",
    [
        {"attributes": None},
        {"attributes": "protocol=https"},
        {"attributes": [["host"]]},
        {"attributes": [["protocol", 7], ["host", "git.example"]]},
        {"attributes": []},
        {"attributes": [["host", "git.example"]]},
        {"attributes": [["protocol", "https"]]},
        {"attributes": [["protocol", "https"], ["host", ""]]},
        {"attributes": [["protocol", "https"], ["host", "git.example\r"]]},
        {"attributes": [["protocol", "https"], ["host", "evil.example"], ["host", "git.example"]]},
        {"attributes": [["protocol", "https"], ["host", "git.example"], ["host", "evil.example"]]},
        {"attributes": [["protocol", "https"], ["host", "git.example"], ["wwwauth[]", "Basic\rhost=x"]]},
        {"attributes": [["protocol", "https"], ["host", "evil.example/git.example"]]},
        {"attributes": [["protocol", "https"], ["host", "evil.example"], ["url", FORGE]]},
        {"attributes": [["protocol", "https://git.example/x"], ["host", ""]]},
        {"action": "store"},
        {"action": None},
        {"settings": None},
        {"settings": []},
        {"settings": {}},
        {"settings": [None]},
        {"settings": [[["http.sslverify", None]]]},
        {"settings": [[["http.sslverify", "false"]]]},
        {"settings": [[], [["http.sslverify", "0"]]]},
        {"settings": [[["http.sslverify", ""]]]},
        {"settings": [[["http.sslcapath", "/evil"]]]},
        {"settings": [[["http.sslcainfo", ""]]]},
        {"settings": [[["http.sslcipherlist", "aNULL"]]]},
        {
            "attributes": [["protocol", "http"], ["host", "localhost"]],
            "settings": [[["http.curloptresolve", "localhost:80:10.0.0.1"]]],
        },
        {"environment": None},
        {"environment": []},
        {"environment": {"GIT_SSL_NO_VERIFY": 7}},
        {"environment": {"GIT_SSL_NO_VERIFY": ""}},
        {"environment": {"GIT_SSL_CIPHER_LIST": "aNULL"}},
        {"environment": {"GIT_SSL_CAPATH": "/evil"}},
        {"environment": {"SSL_CERT_FILE": "/evil"}},
        {"environment": {"GIT_TRACE_REDACT": "false"}},
    ],
    ids=str,
)
def test_a_request_that_is_not_plainly_good_is_told_why_there_is_nothing(
    make_server: MakeServer, more: dict[str, Any]
) -> None:
    answer = ask(make_server(), **more)
    assert set(answer) == {"reason"}
    assert answer["reason"]


@pytest.mark.parametrize(
    "more",
    [
        {"settings": [[["http.sslverify", "true"], ["http.proxy", "http://proxy:1"], ["http.version", "HTTP/1.1"]]]},
        {"settings": [[["http.sslcainfo", "/ca.pem"]], [["http.sslcainfo", "/worker.pem"]]]},
        {"settings": [[["credential.helper", "store"], ["credential.helper", ""]]]},
        {"environment": {"GIT_SSL_CAINFO": "/worker.pem", "SSL_CERT_DIR": "/certs", "http_proxy": "http://proxy:1"}},
        {"attributes": [["protocol", "https"], ["host", "git.example"], ["wwwauth[]", "a"], ["wwwauth[]", "b"]]},
        {"attributes": [["protocol", "https"], ["host", "git.example:443"], ["username", "somebody"]]},
    ],
    ids=str,
)
def test_what_the_worker_has_itself_is_no_objection(make_server: MakeServer, more: dict[str, Any]) -> None:
    inherited = {"GIT_SSL_CAINFO": "/worker.pem", "SSL_CERT_DIR": "/certs", "GIT_SSL_NO_VERIFY": "1"}
    assert ask(make_server(ca_file=Path("/ca.pem"), environment=inherited), **more)["password"] == SECRET


def test_why_there_is_nothing_is_logged_without_what_there_would_have_been(
    make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    def source(url: str) -> str:
        raise Denied("the mint is closed", hint="wait")

    server = make_server(Credentials({FORGE: source, f"{FORGE}/team": lambda _: SECRET}, ManualClock()))
    assert "sslVerify" in ask(server, settings=[[["http.sslverify", "off"]]])["reason"]
    assert "the mint is closed" in ask(server, attributes=[["protocol", "https"], ["host", "git.example"]])["reason"]
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    assert [(line["event"], line["url"]) for line in lines] == [
        ("git_credentials_refused", f"{FORGE}/team/shop.git"),
        ("git_credentials_failed", FORGE),
    ]
    assert SECRET not in caplog.text


def test_a_line_of_a_run_says_whose_it_is(make_server: MakeServer, caplog: pytest.LogCaptureFixture) -> None:
    with structlog.contextvars.bound_contextvars(colour="red"):
        server = make_server()
        server.open()
    ask(server, environment={"GIT_SSL_NO_VERIFY": "1"})
    assert json.loads(caplog.records[-1].getMessage())["colour"] == "red"


def test_erase_makes_the_source_be_asked_again(make_server: MakeServer) -> None:
    clock = ManualClock()
    server = make_server(Credentials({FORGE: Minting(clock)}, clock))
    assert ask(server)["password"] == "token 1"
    attributes = [*request()["attributes"], ["username", "bot"], ["password", "token 1"]]
    assert ask(server, action="erase", attributes=attributes) == {}
    assert ask(server)["password"] == "token 2"


def test_a_client_that_says_nothing_keeps_nobody_waiting(make_server: MakeServer) -> None:
    server = make_server()
    path = server.config()[SOCKET]
    silent = [socket.socket(socket.AF_UNIX) for _ in range(AT_ONCE + 4)]
    try:
        for each in silent[: AT_ONCE // 2]:
            each.connect(path)
        assert ask(server)["password"] == SECRET
        for each in silent[AT_ONCE // 2 :]:
            each.connect(path)
    finally:
        for each in silent:
            each.close()

    def answers() -> bool:
        try:
            return ask(server)["password"] == SECRET
        except ValueError:
            return False

    wait_until(answers, "the server answers again")


def test_a_machine_without_threads_for_a_client_answers_the_next_one(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server()
    path = server.config()[SOCKET]

    def start_none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_none)
        for _ in range(AT_ONCE + 1):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(20)
                connection.connect(path)
                assert connection.recv(1) == b""
    assert ask(server)["password"] == SECRET


def test_a_source_that_takes_long_keeps_others_from_nothing(make_server: MakeServer) -> None:
    go_on = threading.Event()

    def slow(_: str) -> str:
        go_on.wait(20)
        return "slow"

    server = make_server(Credentials({FORGE: slow, f"{FORGE}/team": lambda _: SECRET}, ManualClock()))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(ask, server, attributes=[["protocol", "https"], ["host", "git.example"]])
        assert ask(server)["password"] == SECRET
        go_on.set()
        assert waiting.result()["password"] == "slow"


def test_the_socket_is_for_this_user_alone_and_goes_with_its_server(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server()
    path = Path(server.config()[SOCKET])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    first = server.config()
    server.open()
    assert server.config() == first
    server.close()
    server.close()
    assert list(path.parent.iterdir()) == []
    assert server.config()[KEY] != first[KEY]


def test_a_folder_that_others_may_enter_is_refused(make_server: MakeServer, tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "private")
    make_server().open()
    for each in (folder, tmp_path / "link"):
        with pytest.raises(Invalid, match="open to others"):
            make_server(folder=each).open()
    (tmp_path / "file").touch()
    with pytest.raises(Invalid, match="cannot be made"):
        make_server(folder=tmp_path / "file").open()


def test_without_credentials_there_is_no_socket_and_nothing_is_said_to_git(
    make_server: MakeServer, tmp_path: Path
) -> None:
    server = make_server(Credentials({}, ManualClock()))
    server.open()
    assert (server.config(), server.environment({"A": "b"})) == ({}, {"A": "b"})
    assert list(tmp_path.iterdir()) == []


# --- the program that git starts


def fill(environment: dict[str, str], text: str, action: str = "fill") -> subprocess.CompletedProcess[str]:
    """Ask git for credentials, as git itself does."""
    base = {"PATH": os.environ["PATH"], "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(
        ["git", "credential", action],
        input=text,
        env={**base, **environment},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def helper(environment: dict[str, str], data: bytes, action: str = "get") -> subprocess.CompletedProcess[bytes]:
    """Start the program itself, as an older or broken git might."""
    return subprocess.run(
        [sys.executable, "-I", "-S", credential_helper.__file__, action],
        input=data,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        timeout=30,
        check=False,
    )


WHOLE = b"protocol=https\nhost=git.example\npath=team/shop.git\n\n"


def test_git_is_answered_by_way_of_a_folder_of_any_length(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(folder=tmp_path / ("long" * 30) / ("longer" * 30))
    filled = fill(server.environment(), WHOLE.decode())
    assert f"username=x-access-token\npassword={SECRET}\n" in filled.stdout, filled.stderr
    assert len(server.config()[SOCKET]) > 300


@pytest.mark.parametrize(
    "url", ["https://git.example", "https://git.example/team", "https://git.example/team/shop.git"]
)
def test_git_forgets_all_other_helpers_of_this_url_and_only_of_this(
    make_server: MakeServer, tmp_path: Path, url: str
) -> None:
    server = make_server(Credentials({url: lambda _: SECRET}, ManualClock()))
    (tmp_path / ".gitconfig").write_text('[credential]\n\thelper = "!echo username=x; echo password=y; :"\n')
    environment = server.environment({"HOME": str(tmp_path)})
    assert f"password={SECRET}" in fill(environment, WHOLE.decode()).stdout
    assert "password=y" in fill(environment, "protocol=https\nhost=other.example\n\n").stdout


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"protocol=https\n\n",
        b"host=git.example\n\n",
        b"protocol=https\nhost=evil.example\npath=x\nhost=git.example\n\n",  # CVE-2020-5260: a line feed in the URL
        b"protocol=https\nhost=git.example\nhost=evil.example\n\n",
        b"protocol=https\nhost=\npath=git.example/team\n\n",  # CVE-2020-11008: no host
        b"protocol=https\nhost=evil.example\rhost=git.example\n\n",  # CVE-2024-52006: a carriage return
        b"protocol=https\nhost=git.example\r\n\n",
        b"protocol=https\nhost=git.example%0a\n\n",  # CVE-2024-50349: a host that is shown as another
        b"protocol=https\nhost=evil.example%2fgit.example\n\n",
        b"protocol=https\nhost=\xff\n\n",
        b"protocol=-x\nhost=--upload-pack\n\n",
        b"\0\n\n",
    ],
)
def test_a_request_that_git_was_tricked_into_gets_nothing(make_server: MakeServer, data: bytes) -> None:
    done = helper(make_server().environment(), data)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"everturn: no git credentials: ")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "url=https://evil.example?%0ahost=git.example\n\n",
        "url=https://evil.example%0ahost=git.example/\n\n",
        "url=https:///git.example/team\n\n",
        "url=https://git.example%0d/\n\n",
        "url=https://git.example@evil.example/\n\n",
        "url=https://git.example:8443/\n\n",
        "url=http://git.example/\n\n",
    ],
)
def test_urls_that_once_tricked_git_get_nothing(make_server: MakeServer, text: str) -> None:
    done = fill(make_server().environment(), text)
    assert done.returncode != 0
    assert SECRET not in done.stdout


def test_a_key_that_is_wrong_gets_nothing(make_server: MakeServer) -> None:
    done = helper(with_config({KEY: "0" * 64}, make_server().environment()), WHOLE)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"the worker does not answer" in done.stderr


@pytest.mark.parametrize("action", ["store", "capability", "", "get x"])
def test_what_is_not_asked_is_not_answered(make_server: MakeServer, action: str) -> None:
    done = helper(make_server().environment(), WHOLE, action)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_where_no_worker_is_named_it_says_so() -> None:
    done = helper({}, WHOLE)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"everturn: no git credentials: no worker is named\n"


def test_a_git_that_cannot_be_asked_how_it_is_set_up_gets_nothing(make_server: MakeServer, tmp_path: Path) -> None:
    done = helper({**make_server().environment(), "PATH": str(tmp_path)}, WHOLE)
    assert done.stdout == b""
    assert b"git cannot be asked how it is set up" in done.stderr
    done = helper({**make_server().environment(), "GIT_CONFIG_COUNT": "x"}, WHOLE)
    assert done.stdout == b""


def test_rejected_credentials_are_forgotten(make_server: MakeServer) -> None:
    clock = ManualClock()
    server = make_server(Credentials({FORGE: Minting(clock)}, clock))
    environment = server.environment()
    filled = fill(environment, WHOLE.decode()).stdout
    assert "password=token 1\n" in filled
    fill(environment, filled, "approve")
    assert "password=token 1\n" in fill(environment, WHOLE.decode()).stdout
    fill(environment, filled, "reject")
    assert "password=token 2\n" in fill(environment, WHOLE.decode()).stdout


def test_the_reason_of_a_source_reaches_whoever_called_git(make_server: MakeServer) -> None:
    server = make_server(Credentials({FORGE: from_env("FORGE_TOKEN", lambda _: None)}, ManualClock()))
    assert (
        "everturn: no git credentials: the variable FORGE_TOKEN has no git token"
        in fill(server.environment(), WHOLE.decode()).stderr
    )
