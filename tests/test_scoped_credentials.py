"""What a session role can reach, on a server that verifies signatures and enforces policies (docs/credentials.md)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import boto3
import pytest
from botocore.config import Config
from claude_agent_sdk import ClaudeAgentOptions, Message, SessionKey

from everturn import Denied, Invalid, Runtime, Settings, TranscriptStore, Unavailable, WorkItem
from everturn.clock import ManualClock
from everturn.log.names import escape
from everturn.log.objects import BlockingObjects, Objects, run
from everturn.log.roles import DURATION_S, Assignment, SessionRole
from everturn.log.stores import admit, connect, locate
from everturn.testing import LoopbackAws, Reply, ScriptedModel, cli_environment
from polling import wait_until
from support import StorePlace, assert_conforms

pytestmark = pytest.mark.slow

SERVER_PYTHON = Path(__file__).parents[1] / ".venv-bench" / "bin" / "python"
PREFIX = "some/prefix"
ANYTHING = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
FOLDERS = ("sessions", "homes", "summaries", "catalogs", "damaged", "holds", "traces", "journal")

# A policy names the folders of the first, and is too short to name those of the second.
OURS = ("task:a", "fixer@https://git.example/a-group/of-groups/with-a-rather-long/name-for-a-repository#1234567")
THEIRS = ("task:b", "task:aa", "task:A", "task", "other@https://git.example/web#1")


@dataclass(frozen=True)
class Site:
    """A store that is there already, a role that may do everything in it, and a worker that may assume that role."""

    aws: LoopbackAws
    bucket: str
    role: str

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{PREFIX}"

    def settings(self, **given: Any) -> Settings:
        return Settings.load(**{"session_role": self.role, "store": self.url, **given})

    def objects(self, scope: str, **given: Any) -> Objects:
        return connect(self.url, self.settings(**given), assignment=Assignment(scope))

    def contents(self) -> list[str]:
        found = self.aws.client("s3").list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return [item["Key"].removeprefix(f"{PREFIX}/") for item in found]

    def put(self, key: str) -> str:
        self.aws.client("s3").put_object(Bucket=self.bucket, Key=f"{PREFIX}/{key}", Body=b"theirs")
        return key


@pytest.fixture(scope="module")
def aws() -> Iterator[LoopbackAws]:
    with LoopbackAws.start(SERVER_PYTHON) as server:
        yield server


def become(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def make_site(aws: LoopbackAws, monkeypatch: pytest.MonkeyPatch, **role: Any) -> Site:
    site = Site(aws, aws.root.fresh_bucket(), aws.role(ANYTHING, **role))
    become(monkeypatch, aws.root.environment)
    run(admit(connect(site.url, Settings.load()), "first", site.url))
    become(monkeypatch, aws.user(assuming(site.role)))
    return site


def assuming(role: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": ["sts:AssumeRole", "sts:TagSession"], "Resource": role}


@pytest.fixture
def site(aws: LoopbackAws, monkeypatch: pytest.MonkeyPatch) -> Site:
    return make_site(aws, monkeypatch)


def key_in(folder: str, scope: str, *more: str) -> str:
    return "/".join((folder, escape(scope, "scope"), *more, "x.json"))


# --- What is another's ------------------------------------------------------------------------------------------


def attempts(objects: Objects, key: str) -> dict[str, Callable[[], Any]]:
    return {
        "read": lambda: run(objects.get(key)),
        "read many": lambda: run(objects.get_many([key])),
        "create": lambda: run(objects.create(key, b"ours")),
        "write": lambda: run(objects.put(key, b"ours")),
        "delete": lambda: run(objects.delete([key])),
    }


def assert_refused(work: Callable[[], Any], what: str) -> None:
    try:
        work()
    except Denied as error:
        if "AccessDenied" in error.message:
            return
        raise
    pytest.fail(f"allowed: {what}")


@pytest.mark.parametrize("ours", OURS)
def test_nothing_of_another_task_can_be_read_written_deleted_or_listed(site: Site, ours: str) -> None:
    objects = site.objects(ours)
    there = [site.put(key_in(folder, scope)) for folder in FOLDERS for scope in THEIRS]
    # Theirs, too, even if something in their scope has the name of ours.
    there += [site.put(key_in(folder, THEIRS[0], escape(ours, "scope"))) for folder in FOLDERS]
    before = site.contents()
    for key in there:
        for what, attempt in attempts(objects, key).items():
            assert_refused(attempt, f"{what} {key}")
        assert_refused(lambda key=key: run(objects.listing(key.rpartition("/")[0])), f"list {key}")
        assert_refused(lambda key=key: run(objects.list_folders(key.rpartition("/")[0])), f"list {key}")
    assert site.contents() == before


@pytest.mark.parametrize("ours", OURS)
def test_nothing_new_can_be_written_into_another_task(site: Site, ours: str) -> None:
    objects, before = site.objects(ours), site.contents()
    for folder in (*FOLDERS, "elsewhere"):
        for key in (key_in(folder, THEIRS[0]), key_in(folder, THEIRS[0], escape(ours, "scope"), "main")):
            assert_refused(partial(run, objects.create(key, b"ours")), key)
    assert_refused(partial(run, objects.create("probes/task-1.json", b"ours")), "probe")
    assert site.contents() == before


@pytest.mark.parametrize("ours", OURS)
def test_what_all_tasks_share_can_be_read_at_most(site: Site, ours: str) -> None:
    objects = site.objects(ours)
    hold = site.put(key_in("holds", ours))
    assert run(objects.get("format.json")) is not None
    assert run(objects.get(hold)) is not None
    for key in ("format.json", hold):
        for what in ("write", "create", "delete"):
            assert_refused(attempts(objects, key)[what], f"{what} {key}")
    for folder in ("", *FOLDERS, "probes"):
        assert_refused(partial(run, objects.listing(folder)), f"list {folder}")
        assert_refused(partial(run, objects.list_folders(folder)), f"list {folder}")


def test_another_bucket_cannot_be_reached(site: Site) -> None:
    other = Site(site.aws, site.aws.root.fresh_bucket(), site.role)
    key = other.put(key_in("sessions", OURS[0]))
    held = SessionRole(site.settings(), site.bucket, PREFIX).credentials(Assignment(OURS[0]))
    objects = locate(other.url, site.settings(), credentials=held)
    for what, attempt in attempts(objects, key).items():
        assert_refused(attempt, what)


def test_the_worker_itself_may_do_nothing_in_the_store(site: Site) -> None:
    with pytest.raises(Denied):
        TranscriptStore.open(site.url, scope=OURS[0], settings=Settings.load())


# --- What is ours -----------------------------------------------------------------------------------------------


async def live(site: Site, ours: str) -> list[str]:
    key: SessionKey = {"project_key": "-home-ada", "session_id": "10000000-0000-4000-8000-000000000000"}
    sub: SessionKey = {**key, "subpath": "subagents/agent-1"}
    settings = site.settings(compact_after_parts=4)
    store = await anyio.to_thread.run_sync(
        lambda: TranscriptStore.open(site.url, scope=ours, any_cwd=True, settings=settings)
    )
    async with store:
        for number in range(12):
            await store.append(key, [{"type": "user", "uuid": f"u{number}"}])
        await store.append(sub, [{"type": "user", "uuid": "s1"}])
        assert [entry["uuid"] for entry in await store.load(key) or []] == [f"u{number}" for number in range(12)]
        assert len(await store.load(sub) or []) == 1
        assert await store.list_subkeys(key) == ["subagents/agent-1"]
        assert len(await store.list_sessions("-home-ada")) == 1
        await store.flush()
        assert len(await store.list_session_summaries("-home-ada")) == 1
    kept = site.contents()
    claimed = await anyio.to_thread.run_sync(
        lambda: TranscriptStore.open(site.url, scope=ours, any_cwd=True, epoch=1, settings=settings)
    )
    async with claimed:
        assert await claimed.take_over("-home-bob", key["session_id"])
        assert len(await claimed.load(key) or []) == 12
        await claimed.delete(key)
        assert await claimed.load(key) is None
        assert await claimed.list_sessions("-home-ada") == []
    return kept


@pytest.mark.parametrize("ours", OURS)
def test_a_task_can_do_everything_with_its_own_sessions(site: Site, ours: str) -> None:
    kept = anyio.run(live, site, ours)
    segment = escape(ours, "scope")
    assert {key.split("/")[0] for key in kept} >= {"format.json", "probes", "sessions", "homes", "summaries"}
    assert any(f"sessions/{segment}/" in key and "-00" in key.rpartition("/")[2] for key in kept)  # a segment
    assert all(segment in key for key in kept if key not in ("format.json", "probes/first.json"))


def test_the_sdks_own_conformance_suite_passes(site: Site) -> None:
    anyio.run(assert_conforms, StorePlace(site.url, site.settings()))


@pytest.mark.parametrize("ours", OURS)
def test_a_trace_can_be_left_and_is_not_taken_away(site: Site, ours: str) -> None:
    objects, key = site.objects(ours), key_in("traces", ours)
    assert run(objects.get(key)) is None
    assert run(objects.create(key, b"trace"))
    assert not run(objects.create(key, b"another"))
    assert run(objects.get(key)) is not None
    assert_refused(partial(run, objects.delete([key])), "delete")


# --- Who may assume the role, and for whom ----------------------------------------------------------------------


def trust(**conditions: Any) -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": ["sts:AssumeRole", "sts:TagSession"],
        "Condition": conditions,
    }


def first_message_of(runtime: Runtime, work: WorkItem, cwd: Path) -> None:
    async def main() -> None:
        options = ClaudeAgentOptions(setting_sources=[], cwd=None if work.repo else cwd)
        async for _ in runtime.run(work, prompt="Hello.", options=options):
            return

    anyio.run(main)


def test_a_trust_policy_sees_the_task_the_agent_and_the_repository(
    aws: LoopbackAws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tags = {"aws:RequestTag/everturn-agent": "fixer", "aws:RequestTag/everturn-repo": "https://git.example/web"}
    site = make_site(aws, monkeypatch, trust=trust(StringEquals=tags))
    fits, other = (Assignment("task:1", "fixer", f"https://git.example/{name}") for name in ("web", "x"))
    run(admit(connect(site.url, site.settings(), assignment=fits), "task:1", site.url))
    with pytest.raises(Denied, match="not allowed to assume"):
        run(admit(connect(site.url, site.settings(), assignment=other), "task:1", site.url))


def test_a_run_names_its_agent_and_its_repository_to_sts(
    aws: LoopbackAws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site = make_site(aws, monkeypatch, trust=trust(StringEquals={"aws:RequestTag/everturn-agent": "fixer"}))
    runtime = Runtime(site.settings(state=tmp_path / "state"))
    with pytest.raises(Denied, match="not allowed to assume"):
        first_message_of(runtime, WorkItem.task("1", agent="other"), tmp_path)
    before = site.contents()
    with pytest.raises(Denied, match="not allowed to assume"):
        runtime.open_store("task:1")  # for no agent that we know of
    assert site.contents() == before


def test_the_roles_own_policy_sees_the_tags(aws: LoopbackAws, monkeypatch: pytest.MonkeyPatch) -> None:
    site = make_site(aws, monkeypatch)
    tagged = {**ANYTHING, "Condition": {"StringEquals": {"aws:PrincipalTag/everturn-task": "task:1"}}}
    site = Site(aws, site.bucket, aws.role(tagged))
    become(monkeypatch, aws.user(assuming(site.role)))
    TranscriptStore.open(site.url, scope="task:1", settings=site.settings())
    with pytest.raises(Denied, match="AccessDenied"):
        TranscriptStore.open(site.url, scope="task:2", settings=site.settings())


def refused_run(site: Site, folder: Path, **settings: Any) -> Exception:
    """Try to run, and return why it was refused. Nothing may have come of it: no claim, no object."""
    before = site.contents()
    runtime = Runtime(site.settings(state=folder / "state", retry_deadline_s=0.5, **settings))
    work = WorkItem.task("1")
    with pytest.raises((Denied, Unavailable, Invalid)) as caught:
        first_message_of(runtime, work, folder)
    assert runtime.registry.get(work) is None
    assert site.contents() == before
    return caught.value


def test_without_a_role_that_may_be_assumed_there_is_no_run(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = site.role + "-that-is-not-there"
    become(monkeypatch, site.aws.user({**assuming(missing), "Resource": "*"}))
    error = refused_run(site, tmp_path, session_role=missing)
    assert isinstance(error, Denied)
    assert f"not allowed to assume {missing}" in str(error)

    become(monkeypatch, site.aws.user(ANYTHING))  # who could well do without the role
    error = refused_run(site, tmp_path)
    assert isinstance(error, Denied)
    assert "sts:TagSession" in str(error)


def test_without_the_right_to_tag_the_session_there_is_no_run(
    aws: LoopbackAws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site = make_site(aws, monkeypatch, trust={**trust(), "Action": "sts:AssumeRole"})
    error = refused_run(site, tmp_path)
    assert isinstance(error, Denied)
    assert "TagSession" in str(error)


def test_with_keys_that_aws_does_not_know_there_is_no_run(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert isinstance(refused_run(site, tmp_path), Denied)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert "no credentials to assume" in str(refused_run(site, tmp_path))


def test_the_workers_own_credentials_may_be_a_profile(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
    lines = [f"{name.lower().replace('aws_region', 'region')} = {os.environ[name]}" for name in names]
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text("\n".join(["[profile worker]", *lines]))
    for name in names:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "worker")
    TranscriptStore.open(site.url, scope="task:1", settings=site.settings())
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(Invalid, match="nobody"):
        TranscriptStore.open(site.url, scope="task:1", settings=site.settings())


def test_while_sts_is_down_there_is_no_run(site: Site, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}"
    error = refused_run(site, tmp_path, aws_endpoint_url_sts=nobody)
    assert isinstance(error, Unavailable)
    assert "could not be assumed" in str(error)
    assert nobody not in str(error)  # there may be a password in it


def test_a_place_that_is_no_store_yet_is_not_made_one_by_a_task(site: Site, tmp_path: Path) -> None:
    empty = Site(site.aws, site.aws.root.fresh_bucket(), site.role)
    error = refused_run(empty, tmp_path)
    assert isinstance(error, Denied)
    assert "is no store yet" in str(error)
    assert empty.contents() == []


# --- Credentials that end ---------------------------------------------------------------------------------------


class StsOnTheWay:
    """STS, but what it says is changed on the way."""

    def __init__(self, site: Site) -> None:
        config = Config(parameter_validation=False)  # it would not let anybody ask for so short a time
        self._sts = boto3.Session(region_name="us-east-1").client(
            "sts", endpoint_url=site.aws.root.url, config=config
        )
        self.down = False
        self.shorter_s: int | None = None

    def assume_role(self, **request: Any) -> Any:
        if self.down:
            raise ConnectionError("nobody answers")
        if self.shorter_s is None:
            return self._sts.assume_role(**request)
        given = self._sts.assume_role(**{**request, "DurationSeconds": self.shorter_s})
        given["Credentials"]["Expiration"] = self._sts.assume_role(**request)["Credentials"]["Expiration"]
        return given


def with_sts(site: Site, sts: StsOnTheWay, clock: ManualClock) -> BlockingObjects:
    role = SessionRole(site.settings(), site.bucket, PREFIX, clock=clock, make_sts=lambda: sts)
    return locate(site.url, site.settings(), clock, role.credentials(Assignment(OURS[0])))


def test_a_store_whose_credentials_could_not_be_renewed_writes_nothing_more(site: Site) -> None:
    sts, clock = StsOnTheWay(site), ManualClock()
    objects = with_sts(site, sts, clock)
    assert run(objects.create(key_in("sessions", OURS[0], "1"), b"x"))
    sts.down = True
    clock.advance(DURATION_S * 0.9)
    assert run(objects.create(key_in("sessions", OURS[0], "2"), b"x"))
    clock.advance(DURATION_S * 0.1)
    with pytest.raises(Unavailable, match="could not be assumed"):
        run(objects.create(key_in("sessions", OURS[0], "3"), b"x"))
    sts.down = False
    clock.advance(5)
    assert run(objects.create(key_in("sessions", OURS[0], "4"), b"x"))
    assert [key.split("/")[2] for key in site.contents() if key.startswith("sessions")] == ["1", "2", "4"]


def test_credentials_that_end_before_they_should_are_reported(site: Site) -> None:
    sts = StsOnTheWay(site)
    sts.shorter_s = 1
    objects = with_sts(site, sts, ManualClock())
    run(objects.get("format.json"))

    def refusal() -> Denied | None:
        try:
            run(objects.put(key_in("homes", OURS[0]), b"x"))
        except Denied as error:
            return error
        return None

    assert "ExpiredToken" in wait_until(refusal, "an end of the credentials").message


# --- A run ------------------------------------------------------------------------------------------------------


@pytest.mark.cli
def test_a_run_and_the_next_one_go_through_with_credentials_of_their_own(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runtime = Runtime(site.settings(state=tmp_path / "state"))
    work = WorkItem.task("tap", agent="plumber")

    async def finish() -> tuple[Any, list[Message]]:
        going = runtime.run(work, prompt="Hello.", options=ClaudeAgentOptions(setting_sources=[], cwd=tmp_path))
        return going, [message async for message in going]

    with ScriptedModel(lambda _: Reply("Hello.")).serve() as url:
        become(monkeypatch, cli_environment(url, tmp_path, path=os.environ["PATH"], tmpdir=tmp_path))
        first, _ = anyio.run(finish)
        again, _ = anyio.run(finish)
    assert (first.resumed, again.resumed) == (False, True)
    ours = escape(work.key, "scope")
    assert all(key.split("/")[1].removesuffix(".json") in (ours, "first") for key in site.contents() if "/" in key)
    entries = anyio.run(
        runtime.open_store(work.key).load, {"project_key": "any", "session_id": str(first.session_id)}
    )
    assert "Hello." in str(entries)
