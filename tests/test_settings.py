"""Settings: where each value comes from, and what is refused."""

from __future__ import annotations

import platform
from pathlib import Path

import pydantic
import pytest

from everturn.errors import Invalid
from everturn.settings import Settings, inherited_environment


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of the test's own, where `everturn.toml` may lie."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def config(folder: Path) -> Path:
    return folder / "everturn.toml"


def test_a_keyword_goes_before_the_environment_before_the_file_before_the_default(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings.load().worker == platform.node()
    config.write_text('worker = "from-the-file"\n')
    assert Settings.load().worker == "from-the-file"
    monkeypatch.setenv("EVERTURN_WORKER", "from-the-environment")
    assert Settings.load().worker == "from-the-environment"
    assert Settings.load(worker="from-the-keyword").worker == "from-the-keyword"


def test_each_source_fills_in_what_the_others_leave_open(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text('store = "memory://"\ngit_timeout_s = 5\n')
    monkeypatch.setenv("EVERTURN_REGISTRY", "sqlite:///r.db")
    settings = Settings.load(worker="w1", store=None)
    assert settings.store_url() == "memory://"
    assert settings.registry_url() == "sqlite:///r.db"
    assert (settings.worker, settings.git_timeout_s) == ("w1", 5.0)


def test_everything_stays_in_one_folder_of_the_home_unless_told_otherwise(tmp_path: Path) -> None:
    state = tmp_path / ".local/state/everturn"
    settings = Settings.load()
    assert settings.state == state
    assert settings.store_url() == (state / "store").as_uri()
    assert settings.registry_url() == f"sqlite://{state}/registry.db"
    assert settings.workdirs_path() == state / "workdirs"


def test_the_state_folder_follows_the_desktop_standard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert Settings.load().state == tmp_path / "xdg" / "everturn"


def test_a_user_without_a_home_is_told_what_to_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(Invalid, match=r"no home folder .*set HOME, or EVERTURN_STATE"):
        Settings.load()
    assert Settings.load(state=folder).runs_path().is_relative_to(folder)


def test_a_relative_state_folder_gives_absolute_places(folder: Path) -> None:
    settings = Settings.load(state="my state")
    assert settings.store_url() == f"file://{folder}/my%20state/store"
    assert settings.registry_url() == f"sqlite://{folder}/my state/registry.db"
    assert settings.workdirs_path() == folder / "my state" / "workdirs"


def test_workdirs_may_lie_elsewhere(folder: Path) -> None:
    assert Settings.load(workdirs="trees").workdirs_path() == folder / "trees"


def test_nothing_is_made_by_reading_settings(tmp_path: Path, folder: Path) -> None:
    settings = Settings.load()
    settings.store_url()
    settings.registry_url()
    settings.workdirs_path()
    assert list(tmp_path.iterdir()) == [folder]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("request_timeout_s", "soon"),
        ("request_timeout_s", "0"),
        ("request_timeout_s", "-1"),
        ("request_timeout_s", "31"),
        ("request_timeout_s", "nan"),
        ("append_deadline_s", "3600"),
        ("summary_pause_s", "0"),
        ("git_timeout_s", "1 minute"),
        ("log_level", "loud"),
        ("log_level", "INFO"),
    ],
)
def test_a_wrong_value_in_the_environment_is_refused_by_name(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"EVERTURN_{name.upper()}", value)
    with pytest.raises(Invalid) as caught:
        Settings.load()
    assert caught.value.message.startswith(f"the setting {name} is wrong: ")
    assert f"EVERTURN_{name.upper()}" in caught.value.hint


@pytest.mark.parametrize("line", ["store = 7", "worker = []", "git_timeout_s = '1 minute'", "log_level = true"])
def test_a_wrong_value_in_the_file_is_refused_by_name(line: str, config: Path) -> None:
    config.write_text(line)
    with pytest.raises(Invalid) as caught:
        Settings.load()
    assert caught.value.message.startswith(f"the setting {line.split(maxsplit=1)[0]} is wrong: ")
    assert "everturn.toml" in caught.value.hint


def test_a_wrong_keyword_is_refused_by_name() -> None:
    with pytest.raises(Invalid, match="the setting git_timeout_s is wrong"):
        Settings.load(git_timeout_s="long")
    with pytest.raises(Invalid, match="the setting stoer is wrong"):
        Settings.load(stoer="memory://")


def test_an_unknown_key_in_the_file_is_refused_by_name(config: Path) -> None:
    config.write_text('stoer = "memory://"\n')
    with pytest.raises(Invalid, match="the setting stoer is wrong"):
        Settings.load()


def test_an_unknown_variable_of_ours_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERTURN_STOER", "memory://")
    with pytest.raises(Invalid, match="EVERTURN_STOER"):
        Settings.load()


def test_variables_of_others_are_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STORE", "WORKER", "STATE"):
        monkeypatch.setenv(name, "theirs")
    settings = Settings.load()
    assert (settings.store, settings.worker) == (None, platform.node())


def test_an_empty_variable_says_nothing(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text('worker = "from-the-file"\n')
    for name in ("WORKER", "STORE", "GIT_TIMEOUT_S"):
        monkeypatch.setenv(f"EVERTURN_{name}", "")
    settings = Settings.load()
    assert (settings.worker, settings.store, settings.git_timeout_s) == ("from-the-file", None, 600.0)


@pytest.mark.parametrize("content", [b"store = ", b"[[[", b'store = "\xff\xfe"\n'])
def test_a_file_that_is_no_toml_is_refused(content: bytes, config: Path) -> None:
    config.write_bytes(content)
    with pytest.raises(Invalid, match=r"everturn\.toml cannot be read"):
        Settings.load()


def test_an_empty_file_and_a_folder_of_that_name_say_nothing(config: Path) -> None:
    plain = Settings.load()
    config.touch()
    assert Settings.load() == plain
    config.unlink()
    config.mkdir()
    assert Settings.load() == plain


@pytest.mark.parametrize(
    "name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_STS", "AWS_PROFILE", "AWS_REGION"]
)
def test_aws_variables_are_read_under_their_usual_names(
    name: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = name.lower()
    assert getattr(Settings.load(), field) is None
    config.write_text(f'{field} = "http://from-the-file"\n')
    assert getattr(Settings.load(), field) == "http://from-the-file"
    monkeypatch.setenv(name, "http://from-the-environment")
    assert getattr(Settings.load(), field) == "http://from-the-environment"
    assert getattr(Settings.load(**{field: "http://from-the-keyword"}), field) == "http://from-the-keyword"


def test_keys_in_the_environment_go_before_a_profile_in_the_file(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text('aws_profile = "wide"\nworker = "from-the-file"\n')
    assert Settings.load().aws_profile == "wide"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-one-task")
    assert (Settings.load().aws_profile, Settings.load().worker) == (None, "from-the-file")
    assert Settings.load(aws_profile="asked-for").aws_profile == "asked-for"
    monkeypatch.setenv("AWS_PROFILE", "said-beside-them")
    assert Settings.load().aws_profile == "said-beside-them"


def test_settings_do_not_change() -> None:
    with pytest.raises(pydantic.ValidationError):
        Settings.load().worker = "other"  # type: ignore[misc]


def test_an_inherited_environment_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_VARIABLE", "1")
    copy = inherited_environment()
    assert copy["SOME_VARIABLE"] == "1"
    copy["SOME_VARIABLE"] = "2"
    assert inherited_environment()["SOME_VARIABLE"] == "1"


# --- Settings by agent ----------------------------------------------------------------------------------------------


@pytest.fixture
def agents(folder: Path) -> Path:
    return folder / "agents.json"


def test_without_an_agents_file_all_agents_have_the_same_limit(folder: Path) -> None:
    ages = Settings.load().session_ages()
    assert ages.limit_s("fixer") == ages.limit_s(None) == 86400
    assert Settings.load(max_session_age_ms=1500).session_ages().limit_s("fixer") == 1.5


@pytest.mark.parametrize("where", ["environment", "file"])
def test_null_means_for_ever(where: str, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "file":
        config.write_text('max_session_age_ms = "null"\n')
    else:
        monkeypatch.setenv("EVERTURN_MAX_SESSION_AGE_MS", "null")
    settings = Settings.load()
    assert settings.max_session_age_ms is None
    assert settings.session_ages().limit_s("fixer") is None


@pytest.mark.parametrize("value", ["true", "1.0", "-1", '"soon"', "[]"])
def test_a_wrong_age_in_the_file_is_refused(value: str, config: Path) -> None:
    config.write_text(f"max_session_age_ms = {value}\n")
    with pytest.raises(Invalid, match="the setting max_session_age_ms is wrong"):
        Settings.load()


def test_agents_have_limits_of_their_own(agents: Path) -> None:
    agents.write_text(
        '{"fixer": {"max_session_age_ms": 3600000}, "reviewer": {"max_session_age_ms": null}, "plain": {}}'
    )
    ages = Settings.load(max_session_age_ms=60_000).session_ages()
    assert [ages.limit_s(agent) for agent in ("fixer", "reviewer", "plain", "other", None)] == [
        3600,
        None,
        60,
        60,
        60,
    ]


def test_another_agents_file_can_be_named(agents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agents.write_text('{"fixer": {"max_session_age_ms": 1000}}')
    named = tmp_path / "fleet.json"
    named.write_text('{"fixer": {"max_session_age_ms": 0}}')
    monkeypatch.setenv("EVERTURN_AGENTS_FILE", str(named))
    assert Settings.load().session_ages().limit_s("fixer") == 0


def test_an_agents_file_that_is_named_has_to_be_there(folder: Path) -> None:
    with pytest.raises(Invalid, match=r"fleet\.json cannot be read: No such file") as caught:
        Settings.load(agents_file="fleet.json")
    assert "agents_file" in caught.value.hint


def test_a_folder_named_agents_json_says_nothing_unless_it_is_named(agents: Path) -> None:
    agents.mkdir()
    assert Settings.load().session_ages().by_agent == {}
    with pytest.raises(Invalid, match=r"agents\.json cannot be read"):
        Settings.load(agents_file="agents.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "agents.json is no object of agents"),
        ("null", "agents.json is no object of agents"),
        ('{"fixer": 5}', "agents.json gives the agent 'fixer' no object of settings"),
        ('{"fixer": null}', "agents.json gives the agent 'fixer' no object of settings"),
        ('{"fixer": {"max_age": 5}}', "agents.json gives the agent 'fixer' the unknown setting 'max_age'"),
        *(
            (
                f'{{"ok": {{}}, "fixer": {{"max_session_age_ms": {value}}}}}',
                "agents.json gives the agent 'fixer' a wrong max_session_age_ms: ",
            )
            for value in ("-1", "1.5", "1.0", "true", '"5"', "[]", "NaN", "-Infinity")
        ),
        ('{"fixer": {}, "fixer": {}}', "agents.json cannot be read: 'fixer' is there twice"),
        ('{"fixer": ', "agents.json cannot be read: "),
        ("", "agents.json cannot be read: "),
        ("\udcff", "agents.json cannot be read: "),
        ("[" * 100_000, "agents.json cannot be read: "),
    ],
)
def test_a_wrong_agents_file_is_refused_by_name(content: str, message: str, agents: Path) -> None:
    agents.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(Invalid) as caught:
        Settings.load()
    assert caught.value.message.startswith(message)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["admin_token", "read_token"])
@pytest.mark.parametrize("token", ["short", "with a space in the middle", "ä" * 20, "", "tab\there-and-on-and-on"])
def test_a_token_that_is_easy_to_guess_or_cannot_stand_in_a_header_is_refused(name, token):
    with pytest.raises(Invalid, match=name):
        Settings.load(**{name: token})


def test_a_forge_has_one_secret_or_several_while_it_is_exchanged():
    one = Settings.load(webhook_secrets={"github": "s" * 16})
    two = Settings.load(webhook_secrets={"github": ["s" * 16, "t" * 16]})
    assert one.secrets_of("github") == ("s" * 16,)
    assert two.secrets_of("github") == ("s" * 16, "t" * 16)
    assert two.secrets_of("gitlab") == ()


def test_secrets_of_webhooks_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("EVERTURN_WEBHOOK_SECRETS", '{"forgejo": "0123456789abcdef"}')
    assert Settings.load().secrets_of("forgejo") == ("0123456789abcdef",)


@pytest.mark.parametrize("secrets", [{"github": "short"}, {"github": ["s" * 16, ""]}, {"hub": "s" * 16}])
def test_a_secret_that_is_too_short_or_of_no_forge_is_refused(secrets):
    with pytest.raises(Invalid, match="webhook_secrets"):
        Settings.load(webhook_secrets=secrets)


def test_secrets_are_not_shown_with_the_settings():
    settings = Settings.load(admin_token="a" * 16, read_token="r" * 16, webhook_secrets={"github": "s" * 16})
    assert not any(secret * 16 in repr(settings) for secret in "ars")


def test_a_refused_secret_is_not_told():
    with pytest.raises(Invalid) as told:
        Settings.load(admin_token="hunter2 hunter2 hunter2")
    assert "hunter2" not in str(told.value)


def test_agents_do_not_see_the_secrets_of_the_service():
    assert {"EVERTURN_ADMIN_TOKEN", "EVERTURN_READ_TOKEN", "EVERTURN_WEBHOOK_SECRETS"} <= set(
        Settings.load().token_variables()
    )
