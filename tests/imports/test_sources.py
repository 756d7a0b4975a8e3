"""What is peculiar to each kind of store: its order, its indexes, its refusals, and that no password is shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from redis.exceptions import MovedError, NoPermissionError

from everturn import Settings
from everturn.errors import Conflict, Denied, EverturnError, Invalid, NotFound, Unavailable
from everturn.log.objects import run
from everturn.transcripts.archive import SessionRef
from everturn.upkeep.importing import find_in, select
from everturn.upkeep.sources import open_source
from everturn.upkeep.sources.base import label_of, split_url
from everturn.upkeep.verification import verify_session
from imports.adapters import PostgresAdapter, RedisAdapter, S3Adapter
from imports.servers import Server, postgres_url
from imports.test_importing import OTHER, PROJECT, SUBPATH, bring, loaded, memory, results
from upkeep.shelf import MODE, SESSION, said


def found(url: str) -> list[tuple[str, str]]:
    with open_source(url, Settings.load()) as source:
        sessions, _ = find_in(source)
    return [(each.project_key, each.session_id) for each in sessions]


# --- URLs -----------------------------------------------------------------------------------------------------------


def test_our_parameters_are_taken_out_of_a_url_and_the_rest_stays_as_it_is_written() -> None:
    assert split_url("redis://h/0?a=%2F&prefix=my%3Aown&b", "prefix") == ("redis://h/0?a=%2F&b", {"prefix": "my:own"})
    assert split_url("s3://bucket/x", "region") == ("s3://bucket/x", {})


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("redis://ada:secret@host:6379/0?password=secret", "redis://host:6379/0"),
        ("postgresql://ada:se@cret@h1,h2:5/db?sslmode=require", "postgresql://h1,h2:5/db"),
        ("redis://:sec/ret@host/0", "redis://…"),
    ],
)
def test_a_label_has_no_secrets(url: str, label: str) -> None:
    assert label_of(url) == label


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://host/db", "cannot be imported from mysql"),
        ("redis://:sec/ret@host/0", "the URL of redis://… cannot be used"),
        ("redis://host/0?no_such=1", "the URL of redis://host/0 cannot be used"),
        ("redis://[secret", "the redis URL cannot be read"),
        ("postgresql://:secret@host/db?no_such=1", "the URL of postgresql://host/db cannot be used"),
        ("s3://bucket/x?prefix=y", "has a query"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_showing_its_password(url: str, reason: str) -> None:
    with pytest.raises(Invalid, match=r"URL|imported") as refused, open_source(url, Settings.load()) as source:
        source.names()
    assert reason in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(("url", "package"), [("redis://h", "redis"), ("postgresql://h", "psycopg")])
def test_a_client_that_is_not_installed_is_named_with_its_extra(
    url: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Invalid, match=r"pip install 'everturn\["), open_source(url, Settings.load()):
        pass


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "postgresql://127.0.0.1:1/db"])
def test_a_server_that_is_not_there_is_unavailable(url: str) -> None:
    with pytest.raises(Unavailable, match="does not answer"), open_source(url, Settings.load()) as source:
        source.names()


# --- A selection ----------------------------------------------------------------------------------------------------


def test_sessions_are_chosen_by_project_and_by_the_beginning_of_their_ids(on_s3: S3Adapter) -> None:
    for project, session in ((PROJECT, OTHER), (PROJECT, SESSION), ("-srv-b", SESSION)):
        on_s3.append(project, session, [said(1)])
    with open_source(on_s3.url, Settings.load()) as source:
        sessions, _ = find_in(source)

    def chosen(ids: Sequence[str] = (), projects: Sequence[str] = ()) -> tuple[list[tuple[str, str]], list[str]]:
        selected, refused = select(sessions, ids, projects)
        return [(each.project_key, each.session_id) for each in selected], [each.message for each in refused]

    assert chosen(projects=["-srv-b"]) == ([("-srv-b", SESSION)], [])
    assert chosen(ids=[SESSION[:4]]) == ([(PROJECT, SESSION), ("-srv-b", SESSION)], [])
    assert chosen(ids=["77", OTHER], projects=[PROJECT]) == ([(PROJECT, OTHER)], ["there is no session 77"])
    assert chosen(projects=["-srv-c"]) == ([], ["there is no session of the project -srv-c"])
    with pytest.raises(Conflict, match="2 sessions begin with ''"):
        chosen(ids=[""])


# --- S3 -------------------------------------------------------------------------------------------------------------


def test_parts_are_read_in_the_order_of_their_names_as_the_adapter_reads_them(on_s3: S3Adapter) -> None:
    on_s3.append(PROJECT, SESSION, [said(2)], ms=1_760_000_000_009)
    on_s3.append(PROJECT, SESSION, [said(1)], ms=1_760_000_000_001)
    objects = memory()
    bring(on_s3.url, objects)
    assert loaded(objects) == [said(1), said(2)]


def test_a_malformed_line_is_refused_by_name_or_left_out_if_that_is_wanted(on_s3: S3Adapter) -> None:
    on_s3.append(PROJECT, SESSION, [said(1)])
    key = on_s3.put(f"{PROJECT}/{SESSION}", b'\n{"type":"user","n":NaN}\n[1]\n')
    on_s3.append(PROJECT, SESSION, [said(2)])
    on_s3.put(f"{PROJECT}/{SESSION}", b"")
    objects = memory()
    (refusal,) = bring(on_s3.url, objects)
    assert refusal.status == "refused"
    assert f"line 2 of s3://{key}".replace("s3://", on_s3.url.removesuffix("transcripts/")) in refusal.message
    (outcome,) = bring(on_s3.url, objects, skip_malformed=True)
    assert (outcome.status, outcome.entries, outcome.message) == ("imported", 2, "malformed lines left out: 2")
    assert loaded(objects) == [said(1), said(2)]


def test_a_prefix_is_a_folder_and_nothing_beside_it_is_looked_at(on_s3: S3Adapter) -> None:
    on_s3.append(PROJECT, SESSION, [said(1)])
    for url in (on_s3.url, on_s3.url.rstrip("/")):
        assert found(url) == [(PROJECT, SESSION)]
    with pytest.raises(NotFound, match="there are no sessions"):
        found(on_s3.url.rstrip("s/"))
    with pytest.raises(NotFound, match="no such bucket"):
        found("s3://no-such-bucket-anywhere/x")


def test_an_empty_object_that_stands_for_a_folder_is_no_part_of_a_session(on_s3: S3Adapter) -> None:
    on_s3.append(PROJECT, SESSION, [said(1)])
    for folder in (PROJECT, f"{PROJECT}/{SESSION}", f"{PROJECT}/{SESSION}/subagents"):
        on_s3.put_at(f"{folder}/", b"")
    objects = memory()
    assert results(bring(on_s3.url, objects)) == [("imported", 1)]
    assert loaded(objects) == [said(1)]


def test_a_source_may_be_elsewhere_and_the_stores_own_encryption_is_not_asked_of_it(
    on_s3: S3Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_s3.append(PROJECT, SESSION, [said(1)])
    settings = Settings.load()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("EVERTURN_S3_SSE", "c")  # with no key: refused, if it were used
    assert found(f"{on_s3.url}?endpoint={settings.aws_endpoint_url}&region=us-east-1") == [(PROJECT, SESSION)]


# --- Redis ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_sessions_are_found_though_an_index_or_a_list_has_expired(on_redis: RedisAdapter) -> None:
    base = f"transcripts:{PROJECT}:{SESSION}"
    on_redis.append(PROJECT, SESSION, [said(1)])
    on_redis.append(PROJECT, SESSION, [said(11, 0)], SUBPATH)
    on_redis.append(PROJECT, OTHER, [{**said(1), "sessionId": OTHER}])
    on_redis.client.delete(f"transcripts:{PROJECT}:__sessions", f"{base}:__subkeys")
    objects = memory()
    assert results(bring(on_redis.url, objects)) == [("imported", 1), ("imported", 2)]
    assert loaded(objects, SUBPATH) == [said(11, 0)]
    on_redis.append(PROJECT, SESSION, [said(2)])
    on_redis.client.sadd(f"{base}:__subkeys", "subagents/agent-gone")
    on_redis.client.zadd(f"transcripts:{PROJECT}:__sessions", {OTHER: 1})
    on_redis.client.delete(f"transcripts:{PROJECT}:{OTHER}")
    outcomes = bring(on_redis.url, memory())
    assert [outcome.status for outcome in outcomes] == ["refused", "refused"]
    assert "has no main transcript" in outcomes[0].message
    assert "has lost the transcript subagents/agent-gone" in outcomes[1].message


@pytest.mark.slow
def test_long_lists_come_in_pages(on_redis: RedisAdapter) -> None:
    entries = [said(number) for number in range(1, 2_501)]
    on_redis.append(PROJECT, SESSION, entries)
    objects = memory()
    assert results(bring(on_redis.url, objects)) == [("imported", 2_500)]
    assert loaded(objects) == entries


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "my:own", "t*[x]?\\", "two::"])
def test_whatever_the_prefix_only_its_sessions_are_found(redis_place: Server, prefix: str) -> None:
    ours = RedisAdapter(redis_place, prefix.rstrip(":"))
    ours.append(PROJECT, SESSION, [said(1)], SUBPATH)
    ours.append(PROJECT, SESSION, [said(1)])
    RedisAdapter(redis_place, "tax").append("-srv-b", OTHER, [said(1)])
    ours.client.rpush(b"\xff\xfe", "not ours")
    ours.client.set(f"{ours.prefix}user:{OTHER}", "not ours either")
    try:
        url = ours.url.partition("?")[0] + f"?prefix={prefix.replace('?', '%3F')}"
        assert found(url) == [(PROJECT, SESSION)]
    finally:
        ours.client.flushall()


@pytest.mark.slow
def test_a_forgotten_prefix_is_suggested(on_redis: RedisAdapter) -> None:
    on_redis.append(PROJECT, SESSION, [said(1)])
    with pytest.raises(NotFound, match=r"did you mean \?prefix=transcripts\?"):
        found(on_redis.url.partition("?")[0])


@pytest.mark.slow
def test_a_wrong_password_and_a_key_of_another_kind_are_refused(on_redis: RedisAdapter, redis_place: Server) -> None:
    with pytest.raises(Denied, match="refuses these credentials") as refused:
        found(on_redis.url.replace(redis_place.password, "wrong-secret"))
    assert "secret" not in str(refused.value)
    with pytest.raises(Denied, match="refuses these credentials"):
        found(on_redis.url.replace(f":{redis_place.password}@", ""))
    on_redis.client.set(f"transcripts:{PROJECT}:{SESSION}", "text")
    on_redis.client.zadd(f"transcripts:{PROJECT}:__sessions", {SESSION: 1})
    (refusal,) = bring(on_redis.url, memory())
    assert "WRONGTYPE" in refusal.message


@pytest.mark.slow
def test_reading_needs_no_more_than_these_commands(on_redis: RedisAdapter, redis_place: Server) -> None:
    on_redis.append(PROJECT, SESSION, [said(1)])
    on_redis.append(PROJECT, SESSION, [said(11, 0)], SUBPATH)
    commands = ["+scan", "+zrange", "+smembers", "+lrange", "+llen", "+select"]
    on_redis.client.execute_command("ACL", "SETUSER", "reader", "on", ">word", "~transcripts:*", *commands)
    reader = on_redis.url.replace(f":{redis_place.password}@", "reader:word@")
    assert results(bring(reader, memory())) == [("imported", 2)]
    on_redis.client.execute_command("ACL", "SETUSER", "reader", "-lrange")
    (refusal,) = bring(reader, memory())
    assert "refuses these credentials" in refusal.message
    assert "reader" not in refusal.message
    on_redis.client.execute_command("ACL", "DELUSER", "reader")


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (MovedError("3999 127.0.0.1:6381"), Invalid, "one node of a cluster"),
        (NoPermissionError("User reader has no permissions to run it"), Denied, "credentials: this user has no"),
    ],
)
def test_what_other_servers_answer_is_a_refusal_that_names_nobody(
    answer: Exception, kind: type[EverturnError], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_source("redis://127.0.0.1/0", Settings.load()) as source:

        def answered(**_: Any) -> Any:
            raise answer

        monkeypatch.setattr(source._client, "scan_iter", answered)  # type: ignore[attr-defined]
        with pytest.raises(kind, match=words) as refused:
            source.names()
    assert "reader" not in str(refused.value)


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_table_of_another_name_is_read_as_the_server_has_it(postgres_place: Server, database: str) -> None:
    with_schema = PostgresAdapter(postgres_place, database, table="public.Talks")
    with_schema.append(PROJECT, SESSION, [said(1), MODE])
    objects = memory()
    assert results(bring(with_schema.url, objects)) == [("imported", 2)]
    assert found(f"{postgres_url(postgres_place, database)}?application_name=x&table=talks") == [(PROJECT, SESSION)]
    with_schema.close()


@pytest.mark.slow
def test_a_table_that_is_missing_doubtful_or_another_is_refused(
    on_postgres: PostgresAdapter, postgres_place: Server
) -> None:
    for table, kind in (
        ("nothing", NotFound),
        ("pg_class", Invalid),
        ("x;drop table y", Invalid),
        ("a.b.c", Invalid),
    ):
        with pytest.raises(kind, match="table"):
            found(f"{on_postgres.url}?table={table}")
    assert_refused(on_postgres.url, NotFound, "no sessions")
    database = on_postgres.url.rpartition("/")[2]
    PostgresAdapter(postgres_place, database, typescript=True).close()
    assert_refused(on_postgres.url, Conflict, "claude_session_store and claude_session_entries")
    assert_refused(f"{on_postgres.url}?table=claude_session_entries", NotFound, "no sessions")


def assert_refused(url: str, kind: type[EverturnError], words: str) -> None:
    with pytest.raises(kind, match=words):
        found(url)


@pytest.mark.slow
def test_whoever_may_not_read_is_denied_and_needs_no_more_than_that(
    on_postgres: PostgresAdapter, postgres_place: Server
) -> None:
    on_postgres.append(PROJECT, SESSION, [said(1)])
    database = on_postgres.url.rpartition("/")[2]
    on_postgres.connection.execute("CREATE ROLE reader LOGIN PASSWORD 'secret-1'")
    url = postgres_url(postgres_place, database, "reader", "secret-1")
    try:
        assert_refused(url, Denied, "permission denied")
        on_postgres.connection.execute("GRANT SELECT ON claude_session_store TO reader")
        assert found(url) == [(PROJECT, SESSION)]
        with pytest.raises(Denied, match="authentication failed for this user") as refused:
            found(url.replace("secret-1", "secret-2"))
        assert "secret" not in str(refused.value)
        assert "reader" not in str(refused.value)
    finally:
        on_postgres.connection.execute("DROP OWNED BY reader; DROP ROLE reader")


@pytest.mark.slow
def test_what_jsonb_makes_of_an_entry_is_the_same_entry(on_postgres: PostgresAdapter) -> None:
    entry = {**said(1), "zz": 1, "a": {"long name": 1e2, "b": [1.50, 10**30]}}
    on_postgres.append(PROJECT, SESSION, [entry])
    objects = memory()
    bring(on_postgres.url, objects)
    (stored,) = loaded(objects) or []
    assert stored == entry
    assert json.dumps(stored) != json.dumps(entry)  # jsonb keeps keys in another order, and 1e2 as 100


@pytest.mark.slow
@pytest.mark.parametrize("text", ["\0", "\ud83d"])
def test_what_jsonb_refuses_never_got_there_and_the_gap_is_seen(on_postgres: PostgresAdapter, text: str) -> None:
    on_postgres.append(PROJECT, SESSION, [said(1)])
    with pytest.raises(psycopg.DataError):
        on_postgres.append(PROJECT, SESSION, [said(2, text=text)])
    on_postgres.append(PROJECT, SESSION, [said(3)])
    objects = memory()
    bring(on_postgres.url, objects)
    report = run(verify_session(objects, SessionRef("s", PROJECT, SESSION)))
    assert [(each.kind, "follows u-2" in each.message) for each in report.findings] == [("chain", True)]


@pytest.mark.slow
def test_a_session_is_read_as_it_was_at_one_moment(on_postgres: PostgresAdapter) -> None:
    """Rows that are not committed yet are not there, and come with the next import."""
    on_postgres.append(PROJECT, SESSION, [said(1)])
    objects = memory()
    with on_postgres.connection.transaction():
        on_postgres.append(PROJECT, SESSION, [said(2)])
        assert results(bring(on_postgres.url, objects)) == [("imported", 1)]
    assert results(bring(on_postgres.url, objects)) == [("continued", 1)]
    assert loaded(objects) == [said(1), said(2)]
