"""Who gets which credentials, when a source is asked, and what a socket answers to whom."""

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
from hypothesis import given
from hypothesis import strategies as st

from everturn.clock import ManualClock
from everturn.errors import Denied, EverturnError, Invalid, NotFound, Unavailable
from everturn.model import GitCredential
from everturn.workdirs import credential_helper
from everturn.workdirs.credential_helper import KEY, SOCKET
from everturn.workdirs.credential_server import AT_ONCE, CredentialServer
from everturn.workdirs.credentials import (
    EXPIRY_MARGIN_S,
    KEPT_URLS,
    Credential,
    Credentials,
    from_env,
    from_file,
    sources_of,
)
from everturn.workdirs.git import with_config
from polling import wait_until

FORGE = "https://git.example"
SECRET = "s3cr3t-t0ken"


def table(*urls: str) -> Credentials:
    """Return credentials in which each URL has its own name for a token."""
    return Credentials({url: lambda _, url=url: f"token of {url}" for url in urls}, ManualClock())  # type: ignore[misc]


def who(credentials: Credentials, url: str) -> str | None:
    found = credentials.ask(url)
    return None if found is None else found.password.removeprefix("token of ")


# --- the table


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example/team",
        "https://git.example/team/",
        "https://git.example:443/team/shop.git",
        "https://GIT.example/team/shop.git/info/lfs",
        "HTTPS://git.example/team/a%20b",
        "https://git.example/t%65am",
    ],
)
def test_what_lies_below_a_url_is_answered(url: str) -> None:
    assert who(table(f"{FORGE}/team"), url) == f"{FORGE}/team"


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example",
        "https://git.example/",
        "https://git.example/teammates",
        "https://git.example/Team",
        "https://git.example//team",
        "https://git.example/./team",
        "https://git.example/team/../other",
        "https://git.example/team/%2e%2e/other",
        "https://git.example/team%2f..%2fother",
        "https://git.example/team/%252e%252e/other",
        "https://git.example/team\\..\\other",
        "https://git.example/team/shop?x",
        "https://git.example/team/shop#x",
        "https://git.example/team/shop\n",
        "http://git.example/team",
        "ssh://git.example/team",
        "ftp://git.example/team",
        "https://git.example:8443/team",
        "https://git.example.:443/team",
        "https://git.example.evil.example/team",
        "https://evil.example/team",
        "https://evilgit.example/team",
        "https://git.example@evil.example/team",
        "https://git.example%2f@evil.example/team",
        "https://user:pass@git.example/team",
        "https://git%2eexample/team",
        "https://git.example\N{KELVIN SIGN}/team",
        "http\N{LATIN SMALL LETTER LONG S}://git.example/team",
        "https://g\N{LATIN SMALL LETTER DOTLESS I}t.example/team",
        "https://git.example\r\n/team",
        "https://git.example\\@evil.example/team",
        "https:///git.example/team",
        "https://",
        "//git.example/team",
        "git.example/team",
        "",
    ],
)
def test_what_is_not_clearly_the_same_place_is_not(url: str) -> None:
    credentials = table(f"{FORGE}/team")
    assert credentials.ask(url) is None
    assert not credentials.covers(url)
    credentials.forget(url)


def test_the_longest_path_counts() -> None:
    credentials = table(FORGE, f"{FORGE}/team/shop.git", f"{FORGE}/team", "https://other.example")
    assert who(credentials, f"{FORGE}/team/shop.git") == f"{FORGE}/team/shop.git"
    assert who(credentials, f"{FORGE}/team/shop") == f"{FORGE}/team"
    assert who(credentials, f"{FORGE}/other") == FORGE
    assert who(credentials, "https://other.example/team") == "https://other.example"


def test_the_urls_are_in_one_form() -> None:
    assert set(table("https://GIT.example:443/", "https://[::1]:8443/a%20b/", "http://127.0.0.1:3000").urls) == {
        "https://git.example",
        "https://[::1]:8443/a%20b",
        "http://127.0.0.1:3000",
    }


@pytest.mark.parametrize("url", ["http://localhost:3000", "http://127.0.0.1", "http://127.1.2.3:1", "http://[::1]:1"])
def test_plain_http_is_for_loopback(url: str) -> None:
    assert who(table(url), f"{url}/x") == url


@pytest.mark.parametrize(
    "url",
    [
        "http://git.example",
        "http://127.0.0.1.evil.example",
        "http://10.0.0.1",
        "git.example",
        "ssh://git.example",
        "https://user@git.example",
        "https://user:hunter2@git.example",
        "https://git.example/a/../b",
        "https://git.example?x",
        "https://*.example",
        "https://git.example/a\nb",
        "https://größe.example",
    ],
)
def test_a_table_that_is_not_clear_is_refused_and_shows_no_password(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        table(url)
    assert "hunter2" not in str(caught.value)


def test_a_url_may_not_be_there_twice() -> None:
    with pytest.raises(Invalid, match="two sources"):
        table("https://git.example/", "https://GIT.example:443")


@given(st.text())
def test_any_text_is_answered_only_below_its_url(url: str) -> None:
    found = who(table(f"{FORGE}/team"), url)
    assert found is None or url.lower().startswith("https://git.example")


# --- sources


def test_a_source_is_asked_at_each_use_for_the_url_that_is_meant() -> None:
    asked: list[str] = []
    tokens = iter(["one", "two"])

    def source(url: str) -> str:
        asked.append(url)
        return next(tokens)

    credentials = Credentials({FORGE: source}, ManualClock())
    assert [credentials.ask("https://GIT.example:443/a%20b/"), credentials.ask(FORGE)] == [
        Credential("x-access-token", "one"),
        Credential("x-access-token", "two"),
    ]
    assert asked == ["https://git.example/a%20b", "https://git.example"]


class Minting:
    """A source whose tokens end after an hour."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.count = 0
        self.broken = False

    def __call__(self, url: str) -> Credential:
        if self.broken:
            raise Unavailable("no more tokens", hint="wait")
        self.count += 1
        return Credential("bot", f"token {self.count}", self.clock.now() + 3600)


def test_what_says_when_it_ends_is_kept_until_shortly_before() -> None:
    clock = ManualClock()
    mint = Minting(clock)
    credentials = Credentials({FORGE: mint}, clock)
    seen = []
    for pause_s in (0, 3600 - EXPIRY_MARGIN_S - 1, 2, 3600):
        clock.advance(pause_s)
        seen.append(credentials.ask(FORGE))
    assert [each.password for each in seen if each] == ["token 1", "token 1", "token 2", "token 3"]


def test_what_still_lasts_is_used_when_there_is_nothing_new() -> None:
    clock = ManualClock()
    mint = Minting(clock)
    credentials = Credentials({FORGE: mint}, clock)
    credentials.ask(FORGE)
    mint.broken = True
    clock.advance(3600 - EXPIRY_MARGIN_S + 1)
    assert who(credentials, FORGE) == "token 1"
    clock.advance(EXPIRY_MARGIN_S)
    with pytest.raises(Unavailable, match="no more tokens"):
        credentials.ask(FORGE)


def test_what_a_host_has_refused_is_asked_for_again_and_what_came_since_is_kept() -> None:
    clock = ManualClock()
    credentials = Credentials({FORGE: Minting(clock)}, clock)
    assert who(credentials, FORGE) == "token 1"
    credentials.forget(FORGE, "token 1")
    assert who(credentials, FORGE) == "token 2"
    credentials.forget(FORGE, "token 1")
    assert who(credentials, FORGE) == "token 2"
    credentials.forget(FORGE)
    assert who(credentials, FORGE) == "token 3"


def test_an_agent_that_asks_for_many_paths_fills_no_memory() -> None:
    clock = ManualClock()
    mint = Minting(clock)
    credentials = Credentials({FORGE: mint}, clock)
    for number in range(KEPT_URLS + 2):
        credentials.ask(f"{FORGE}/{number}")
    assert len(credentials._kept) == KEPT_URLS
    assert who(credentials, f"{FORGE}/{KEPT_URLS + 1}") == f"token {KEPT_URLS + 2}"


def test_many_who_ask_at_once_get_one_token() -> None:
    clock = ManualClock()
    mint = Minting(clock)
    credentials = Credentials({FORGE: mint}, clock)
    with ThreadPoolExecutor(16) as threads:
        found = set(threads.map(lambda _: who(credentials, FORGE), range(64)))
    assert (found, mint.count) == ({"token 1"}, 1)


def test_an_error_of_a_source_is_told_without_its_text() -> None:
    def source(url: str) -> str:
        raise RuntimeError(f"GET https://user:{SECRET}@tokens.example failed")

    with pytest.raises(Unavailable, match="failed with RuntimeError") as caught:
        Credentials({FORGE: source}, ManualClock()).ask(FORGE)
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("wrong", ["", "a\nusername=b", "a\r", "a\0", b"token", 7, ("a", "b")])
def test_what_git_could_not_be_told_is_refused(wrong: Any) -> None:
    with pytest.raises(Invalid):
        Credentials({FORGE: lambda _: wrong}, ManualClock()).ask(FORGE)


def test_a_source_may_have_nothing() -> None:
    assert Credentials({FORGE: lambda _: None}, ManualClock()).ask(FORGE) is None


def test_a_token_in_the_environment_is_read_at_each_use() -> None:
    variables: dict[str, str] = {}
    source = from_env("FORGE_TOKEN", variables.get)
    with pytest.raises(Denied, match="FORGE_TOKEN"):
        source(FORGE)
    variables["FORGE_TOKEN"] = f" {SECRET}\n"
    assert source(FORGE) == Credential("x-access-token", SECRET)


def test_settings_name_sources(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("two\n")
    settings = {
        FORGE: GitCredential(token_env="FORGE_TOKEN"),
        f"{FORGE}/team": GitCredential(token_file=str(tmp_path / "token"), username="bot"),
    }
    credentials = Credentials(sources_of(settings, {"FORGE_TOKEN": "one"}.get), ManualClock())
    assert credentials.ask(FORGE) == Credential("x-access-token", "one")
    assert credentials.ask(f"{FORGE}/team/shop") == Credential("bot", "two")


def test_a_token_in_a_file_is_read_at_each_use(tmp_path: Path) -> None:
    source = from_file(tmp_path / "token")
    with pytest.raises(NotFound, match="token"):
        source(FORGE)
    for data in (b"", b" \n", b"\xff", b"x" * 70_000):
        (tmp_path / "token").write_bytes(data)
        with pytest.raises(Denied):
            source(FORGE)
    for token in ("one", "two"):
        (tmp_path / "token").write_text(f"{token}\n")
        assert source(FORGE) == Credential("x-access-token", token)
    with pytest.raises(Denied):
        from_file(tmp_path)(FORGE)


def test_a_password_is_in_no_repr() -> None:
    credential = Credential("bot", SECRET, 1.0)
    credentials = Credentials({FORGE: lambda _: credential}, ManualClock())
    assert SECRET not in f"{credential!r} {credential} {credentials!r} {credentials.ask(FORGE)}"


# --- the socket


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


def test_errors_are_of_the_tree() -> None:
    with pytest.raises(EverturnError):
        table("nowhere")
