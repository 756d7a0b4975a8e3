"""A token reaches its host and nobody else: no other host, no file, no command line, no log.

Real git, a real HTTPS server, and what an agent may have left behind to lead git astray.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from everturn.clock import SystemClock
from everturn.errors import Invalid
from everturn.git.credential_server import CredentialServer, _Trust
from everturn.git.credentials import Credentials
from everturn.git.identity import Identity, environment
from everturn.git.runner import Git, with_config
from git.https_git import Authority, Host, basic, make_bare, proxy, serve

pytestmark = pytest.mark.slow

TOKEN = "tok-0f5d1c9a7be34e21-SECRET"


@dataclass
class Stage:
    """A forge, somebody evil, an agent's home and checkout, and the environment in which its git runs."""

    folder: Path
    forge: Host
    evil: Host
    authority: Authority
    server: CredentialServer

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def clone(self) -> Path:
        return self.folder / "clone"

    @property
    def url(self) -> str:
        return f"{self.forge.url}/team/shop.git"

    def environment(self, **more: str) -> dict[str, str]:
        someone = Identity("fixer", "fixer@agents.invalid")
        base = {"PATH": os.environ["PATH"], "HOME": str(self.home), "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        return self.server.environment({**base, **environment(someone, someone), **more})

    def git(self, *arguments: str, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", *arguments],
            cwd=cwd or self.clone,
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def plant(self, key: str, value: str) -> None:
        """Leave a setting in the home folder and one in the repository."""
        for file in (self.home / ".gitconfig", self.clone / ".git" / "config"):
            subprocess.run(["git", "config", "--file", str(file), "--add", key, value], check=True)

    def push(self, **more: str) -> subprocess.CompletedProcess[str]:
        done = self.git("commit", "--quiet", "--allow-empty", "-m", "Two", **more)
        assert done.returncode == 0, done.stderr
        return self.git("push", "origin", "+HEAD:refs/heads/fix", **more)


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    folder = tmp_path_factory.mktemp("authorities")
    return Authority.make(folder, "good"), Authority.make(folder, "evil")


@dataclass
class Ground:
    """What all tests share: it takes long to make."""

    folder: Path
    forge: Host
    evil: Host
    authority: Authority


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, authorities: tuple[Authority, Authority]) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("ground")
    for name in ("team/shop.git", "teammates/shop.git", "other.git"):
        make_bare(folder / name)
    with serve(folder, authorities[0]) as forge, serve(folder, authorities[0], "127.0.0.1") as evil:
        yield Ground(folder, forge, evil, authorities[0])


@pytest.fixture
def stage(tmp_path: Path, ground: Ground) -> Iterator[Stage]:
    forge, evil = ground.forge, ground.evil
    for host in (forge, evil):
        host.forget()
    forge.passwords.add(TOKEN)
    credentials = Credentials({f"{forge.url}/team": lambda _: TOKEN}, SystemClock())
    server = CredentialServer(credentials, tmp_path / "private", ca_file=ground.authority.ca_file)
    stage = Stage(tmp_path, forge, evil, ground.authority, server)
    stage.home.mkdir()
    stage.git("init", "--quiet", "--initial-branch=main", str(stage.clone), cwd=tmp_path)
    stage.plant("remote.origin.url", stage.url)
    # Whoever is evil has certificates of their own that count, as everywhere on the internet.
    for url in (forge.url, evil.url):
        stage.plant(f"http.{url}.sslCAInfo", str(ground.authority.ca_file))
    yield stage
    server.close()


def test_an_agent_clones_and_pushes_without_ever_being_given_the_token(stage: Stage) -> None:
    done = stage.git("clone", "--quiet", stage.url, str(stage.folder / "another"), cwd=stage.folder)
    assert done.returncode == 0, done.stderr
    done = stage.push()
    assert done.returncode == 0, done.stderr
    assert stage.forge.was_told(TOKEN)
    assert not stage.evil.seen


def test_a_child_of_a_child_has_them_too(stage: Stage) -> None:
    program = "import subprocess, sys; sys.exit(subprocess.call(['sh', '-c', 'git ls-remote origin']))"
    subprocess.run([sys.executable, "-c", program], cwd=stage.clone, env=stage.environment(), timeout=60, check=True)
    assert stage.forge.was_told(TOKEN)


def test_git_of_ours_has_them_when_it_goes_online_and_from_nobody_else(stage: Stage) -> None:
    stage.plant(f"credential.{stage.url}.helper", "!echo username=x; echo password=planted; :")
    trusting = {f"http.{stage.forge.url}.sslCAInfo": str(stage.authority.ca_file)}
    git = Git({"PATH": os.environ["PATH"], "HOME": str(stage.home)}, 60, credentials=stage.server.environment)
    with pytest.raises(Invalid):  # what works here alone reaches no host
        git.run(["ls-remote", stage.url], stage.folder, config=trusting)
    assert "refs/heads/main" in git.run(["ls-remote", stage.url], stage.folder, online=True)
    assert not stage.forge.was_told("planted", "x")


def test_a_submodule_is_fetched_with_them_though_git_takes_variables_away_there(stage: Stage) -> None:
    sub = ["-c", "submodule.recurse=true", "submodule", "--quiet", "add", stage.url, "sub"]
    done = stage.git(*sub)
    assert done.returncode == 0, done.stderr
    assert stage.git("submodule", "--quiet", "update", "--remote", "--init").returncode == 0
    assert stage.git("fetch", "--recurse-submodules=yes").returncode == 0


def test_many_ask_at_once(stage: Stage) -> None:
    with ThreadPoolExecutor(16) as threads:
        done = list(threads.map(lambda _: stage.git("ls-remote", "origin"), range(16)))
    assert [each.stderr for each in done] == [""] * 16


def test_the_certificates_of_the_worker_count_for_git_of_ours_too(stage: Stage, ground: Ground) -> None:
    variables = {"GIT_SSL_CAINFO": str(ground.authority.ca_file), "PATH": os.environ["PATH"]}
    credentials = Credentials({stage.forge.url: lambda _: TOKEN}, SystemClock())
    server = CredentialServer(credentials, stage.folder / "private", environment=variables)
    try:
        git = Git(variables, 60, credentials=server.environment)
        assert "refs/heads/main" in git.run(["ls-remote", stage.url], stage.folder, online=True)
    finally:
        server.close()


def test_what_the_environment_says_to_git_already_stays(stage: Stage) -> None:
    block = with_config({"alias.hello": "!echo hello"}, {})
    assert stage.git("hello", **block).stdout == "hello\n"
    assert stage.git("ls-remote", "origin", **block).returncode == 0


def test_an_agent_without_the_worker_gets_no_credentials(stage: Stage) -> None:
    variables = stage.environment()
    stage.server.close()
    done = subprocess.run(
        ["git", "ls-remote", "origin"], cwd=stage.clone, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "everturn: no git credentials: the worker does not answer" in done.stderr


def test_a_url_that_is_rewritten_takes_no_token_along(stage: Stage) -> None:
    stage.plant(f"url.{stage.evil.url}/.insteadOf", f"{stage.forge.url}/")
    stage.plant(f"url.{stage.evil.url}/.pushInsteadOf", f"{stage.forge.url}/")
    assert stage.push().returncode != 0
    assert stage.evil.seen
    assert not stage.evil.was_told(TOKEN)


def test_a_rewriting_to_plain_http_takes_no_token_along(stage: Stage, tmp_path: Path) -> None:
    with serve(tmp_path, None) as plain:
        stage.plant(f"url.{plain.url}/.insteadOf", f"{stage.forge.url}/")
        assert stage.push().returncode != 0
        assert plain.seen
        assert not plain.was_told(TOKEN)


@pytest.mark.parametrize("below", ["", "/team", "/team/shop.git"])
def test_a_redirect_is_not_followed_and_takes_no_token_along_where_it_is(stage: Stage, below: str) -> None:
    stage.forge.redirects["/team"] = f"{stage.evil.url}/team"
    stage.plant(f"http.{stage.forge.url}{below}.followRedirects", "true")
    assert stage.push().returncode != 0
    # What is said of a longer path counts for more than what is said last, so one of them is followed.
    assert bool(stage.evil.seen) == (below == "/team/shop.git")
    assert not stage.evil.was_told(TOKEN)


def test_a_redirect_after_the_password_takes_no_token_along(stage: Stage) -> None:
    stage.forge.redirects["/team/shop.git/git-receive-pack"] = f"{stage.evil.url}/team/shop.git/git-receive-pack"
    stage.plant(f"http.{stage.url}.followRedirects", "true")
    assert stage.push().returncode != 0
    assert stage.forge.was_told(TOKEN)
    assert not stage.evil.was_told(TOKEN)


def test_a_proxy_passes_on_what_it_cannot_read(stage: Stage) -> None:
    with proxy() as between:
        stage.plant("http.proxy", between.url)
        stage.plant(f"http.{stage.url}.proxy", between.url)
        done = stage.push()
        assert done.returncode == 0, done.stderr
        assert len(between.seen) > 2
        assert not between.was_told(TOKEN)


def planted_everywhere(stage: Stage, key: str, value: str) -> None:
    for place in ("http", f"http.{stage.forge.url}", f"http.{stage.url}"):
        stage.plant(f"{place}.{key}", value)


def test_a_proxy_that_pretends_to_be_the_host_is_told_nothing_when_checking_is_turned_off(
    stage: Stage, authorities: tuple[Authority, Authority]
) -> None:
    with proxy(authorities[1]) as between:
        planted_everywhere(stage, "proxy", between.url)
        planted_everywhere(stage, "sslVerify", "false")
        done = stage.push()
        assert "everturn: no git credentials: http.sslVerify is off" in done.stderr
        assert any("info/refs" in text for text in between.seen)
        assert not between.was_told(TOKEN)


def test_a_proxy_that_pretends_to_be_the_host_is_told_nothing_when_its_certificates_are_planted(
    stage: Stage, authorities: tuple[Authority, Authority]
) -> None:
    with proxy(authorities[1]) as between:
        planted_everywhere(stage, "proxy", between.url)
        planted_everywhere(stage, "sslCAInfo", str(authorities[1].ca_file))
        done = stage.push()
        assert "http.sslcainfo names other certificates than those of the worker" in done.stderr
        assert any("info/refs" in text for text in between.seen)
        assert not between.was_told(TOKEN)


def test_these_proxies_would_be_told_if_nobody_looked(
    stage: Stage, authorities: tuple[Authority, Authority], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Trust, "objection", lambda *_: None)
    with proxy(authorities[1]) as between:
        planted_everywhere(stage, "proxy", between.url)
        planted_everywhere(stage, "sslVerify", "false")
        stage.push()
        assert between.was_told(TOKEN)


def test_settings_of_a_user_in_the_url_do_not_hide_others(
    stage: Stage, authorities: tuple[Authority, Authority]
) -> None:
    with proxy(authorities[1]) as between:
        _, _, host = stage.forge.url.partition("://")
        stage.plant("http.proxy", between.url)
        stage.plant(f"http.{stage.url}.sslVerify", "false")
        stage.plant(f"http.https://x@{host}/team/shop.git.sslVerify", "true")
        stage.plant(f"credential.{stage.forge.url}.username", "x")
        assert "http.sslVerify is off" in stage.push().stderr
        assert any("info/refs" in text for text in between.seen)
        assert not between.was_told(TOKEN, "x")


@pytest.mark.parametrize(
    ("name", "value"), [("GIT_SSL_NO_VERIFY", "1"), ("GIT_SSL_NO_VERIFY", ""), ("GIT_SSL_CAINFO", "evil")]
)
def test_variables_that_turn_checking_off_get_no_token(
    stage: Stage, authorities: tuple[Authority, Authority], name: str, value: str
) -> None:
    with proxy(authorities[1]) as between:
        value = str(authorities[1].ca_file) if value == "evil" else value
        done = stage.push(**{name: value, "https_proxy": between.url})
        assert f"everturn: no git credentials: {name}" in done.stderr
        assert any("info/refs" in text for text in between.seen)
        assert not between.was_told(TOKEN)


def test_settings_for_all_hosts_do_not_even_stop_a_push(
    stage: Stage, authorities: tuple[Authority, Authority]
) -> None:
    stage.plant("http.sslVerify", "false")
    stage.plant("http.sslCAInfo", str(authorities[1].ca_file))
    stage.plant("http.followRedirects", "true")
    done = stage.push()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("place", ["credential", "credential.{forge}", "credential.{url}", "credential.https://*"])
def test_a_planted_helper_is_neither_asked_nor_told(stage: Stage, place: str) -> None:
    heard = stage.folder / "heard"
    section = place.format(forge=stage.forge.url, url=stage.url)
    stage.plant(f"{section}.helper", f"!cat >> {heard}; echo username=x; echo password=y; :")
    stage.plant(f"{section}.helper", f"store --file={heard}")
    stage.plant(f"{section}.useHttpPath", "false")
    done = stage.push()
    assert done.returncode == 0, done.stderr
    assert not heard.exists()


@pytest.mark.parametrize("key", ["credential.helper", "credential.{forge}.helper"])
def test_a_helper_that_is_named_behind_ours_gets_nothing_to_keep(stage: Stage, key: str) -> None:
    kept = stage.folder / "kept"
    setting = f"'{key.format(forge=stage.forge.url)}=store --file={kept}'"
    assert "another credential helper would be told" in stage.push(GIT_CONFIG_PARAMETERS=setting).stderr
    assert not kept.exists()


def test_a_helper_for_another_host_still_works(stage: Stage) -> None:
    stage.evil.passwords.add("another")
    stage.plant(f"credential.{stage.evil.url}.helper", "!echo username=x; echo password=another; :")
    done = stage.git("ls-remote", f"{stage.evil.url}/other.git")
    assert done.returncode == 0, done.stderr


def test_another_path_on_the_same_host_gets_no_token(stage: Stage) -> None:
    before = len(stage.forge.seen)
    assert stage.git("ls-remote", f"{stage.forge.url}/teammates/shop.git").returncode != 0
    assert stage.git("ls-remote", f"{stage.forge.url}/team/../teammates/shop.git").returncode != 0
    assert len(stage.forge.seen) > before
    assert not any(basic("x-access-token", TOKEN) in text for text in stage.forge.seen[before:])


def test_an_include_and_a_config_of_the_worktree_change_nothing(stage: Stage) -> None:
    more = stage.folder / "more"
    for key in ("sslVerify", "followRedirects"):
        subprocess.run(
            ["git", "config", "--file", str(more), f"http.{stage.url}.{key}", str(key != "sslVerify").lower()],
            check=True,
        )
    stage.plant("includeIf.hasconfig:remote.*.url:https://**.path", str(more))
    stage.plant("include.path", str(more))
    assert "http.sslVerify is off" in stage.push().stderr


def test_plain_http_on_loopback_goes_past_no_proxy(stage: Stage, ground: Ground) -> None:
    with ExitStack() as stack:
        plain = stack.enter_context(serve(ground.folder, None))
        between = stack.enter_context(proxy())
        plain.passwords.add(TOKEN)
        credentials = Credentials({plain.url: lambda _: TOKEN}, SystemClock())
        stage.server = CredentialServer(credentials, stage.folder / "private")
        stack.callback(stage.server.close)
        url = f"{plain.url}/team/shop.git"
        assert stage.git("ls-remote", url).returncode == 0
        refused = [
            stage.git("-c", f"http.{url}.proxy={between.url}", "ls-remote", url),
            stage.git("-c", f"remote.origin.proxy={between.url}", "ls-remote", url),
            stage.git("ls-remote", url, http_proxy=between.url),
            stage.git("ls-remote", url, ALL_PROXY=between.url),
        ]
        assert ["to a proxy" in done.stderr for done in refused] == [True] * 4
        assert between.seen
        assert not between.was_told(TOKEN)


def test_a_trace_that_would_show_the_token_gets_none(stage: Stage) -> None:
    log = stage.folder / "trace"
    assert stage.push(GIT_TRACE_CURL=str(log)).returncode == 0
    assert "GIT_TRACE_REDACT" in stage.push(GIT_TRACE_CURL=str(log), GIT_TRACE_REDACT="0").stderr
    assert basic("x-access-token", TOKEN) not in log.read_text()
    assert TOKEN not in log.read_text()


def test_the_token_is_in_no_file_no_command_line_no_environment_and_no_log(
    stage: Stage, ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    stage.plant("credential.helper", "store")
    stop = threading.Event()
    seen: list[bytes] = []
    watcher = threading.Thread(target=watch_processes, args=(stop, seen))
    watcher.start()
    traces = {
        f"GIT_TRACE{kind}": str(stage.folder / f"trace{kind}") for kind in ("", "_CURL", "_PACKET", "2", "2_EVENT")
    }
    try:
        done = [stage.push(**traces), stage.push(GIT_SSL_NO_VERIFY="1")]
    finally:
        stop.set()
        watcher.join()
    assert [each.returncode == 0 for each in done] == [True, False]
    assert any(b"credential_helper.py" in each for each in seen)
    assert any(b"everturn.credentialkey" in each for each in seen)
    spellings = [TOKEN.encode(), basic("x-access-token", TOKEN).encode()]
    folders = (stage.folder, ground.folder)
    files = [path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 30
    texts = [*files, *seen, *(each.stdout.encode() + each.stderr.encode() for each in done), caplog.text.encode()]
    assert not [text for text in texts if any(spelling in text for spelling in spellings)]
    assert "git_credentials_refused" in caplog.text


def watch_processes(stop: threading.Event, seen: list[bytes]) -> None:
    """Write down the command lines and environments of all processes, again and again."""
    known: set[bytes] = set()
    while not stop.is_set():
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                with suppress(OSError):  # it has ended
                    known.add((process / name).read_bytes())
    seen.extend(known)
