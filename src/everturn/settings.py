"""Settings: the only reader of the environment and of config files.

A setting comes from the keyword it is given, else from the environment (`EVERTURN_STORE`, …), else from
`everturn.toml` in the current folder, else from its default. `docs/settings.md` lists them all.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from everturn.errors import Invalid
from everturn.model import ForgeName, GitCredential, RepositoryOptions, SessionAges, repository_name

CONFIG_FILE = "everturn.toml"
AGENTS_FILE = "agents.json"
AGE = "max_session_age_ms"
PREFIX = "EVERTURN_"
RUN_MARKER = "EVERTURN_RUN"  # no setting: it says, to every process below an agent, whose it is

SECRET_LENGTH = 16  # characters; a token of 128 random bits has 22

_SECRETS = ("admin_token", "read_token", "webhook_secrets")
_AUTHOR, _COMMITTER = "git_author", "git_committer"
_AGENTS_HINT = f'as in {{"fixer": {{"{AGE}": 3600000}}}}; see docs/settings.md'


def _check_secret(secret: SecretStr) -> None:
    text = secret.get_secret_value()
    if len(text) < SECRET_LENGTH or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"it has to have {SECRET_LENGTH} printable ASCII characters at least, and no space")


def _state_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else _home() / ".local/state") / "everturn"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        hint = "set HOME, or EVERTURN_STATE and CLAUDE_CONFIG_DIR"
        raise Invalid("this user has no home folder to keep files in", hint=hint) from None


def _alias(name: str) -> AliasChoices:
    return AliasChoices(name.lower(), name)


class _ConfigFile(TomlConfigSettingsSource):
    """`everturn.toml`. Keys in the environment go before a profile in the file, as both say whose credentials to use:
    a worker that was handed one task's would else go on with those of its folder."""

    def __call__(self) -> dict[str, Any]:
        found = super().__call__()
        if os.environ.get("AWS_ACCESS_KEY_ID"):
            return {name: value for name, value in found.items() if name.lower() != "aws_profile"}
        return found


class Settings(BaseSettings):
    """All settings of a process, as one value. Read it once, hand it down."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        env_parse_none_str="null",
        toml_file=CONFIG_FILE,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
    )

    state: Path = Field(default_factory=_state_folder, description="folder for what stays on this machine")
    store: str | None = Field(None, description="URL of the object store; default: a folder inside `state`")
    registry: str | None = Field(None, description="URL of the registry; default: an SQLite file inside `state`")
    workdirs: Path | None = Field(None, description="folder for caches and workdirs; default: inside `state`")
    worker: str = Field(default_factory=platform.node, description="the name of this worker, for people")
    request_timeout_s: float = Field(8.0, gt=0, le=15, description="how long one request to the store may take")
    transfer_timeout_s: float = Field(
        35.0, gt=0, le=35, description="how long one download, or large upload, may take"
    )
    parallel_requests: int = Field(
        16, ge=1, le=256, description="how many requests to the store may be in flight while it does not throttle"
    )
    retry_start_s: float = Field(
        0.1, gt=0, le=10, description="the most to wait before a request is made a second time; doubles each time"
    )
    retry_limit_s: float = Field(2.0, gt=0, le=10, description="the most to wait before a request is made again")
    retry_deadline_s: float = Field(
        10.0, gt=0, le=300, description="how long a read, listing, deletion or derived file goes on being tried"
    )
    append_deadline_s: float = Field(20.0, gt=0, le=20, description="how long an append goes on trying")
    linger_s: float = Field(
        0.0,
        ge=0,
        le=60,
        description="how long frames wait for each other to share one object; 0: each is durable at once",
    )
    summary_pause_s: float = Field(
        30.0, gt=0, le=3600, description="how long a session is quiet before its summary is written"
    )
    compact_after_parts: int = Field(
        64, ge=0, le=10_000, description="how many parts a log grows before it is compacted; 0: never"
    )
    encryption_key_file: Path | None = Field(
        None, description="a file of keys to encrypt transcripts with before they leave this machine"
    )
    claim_ttl_s: float = Field(
        30.0, ge=1, le=3600, description="how long a claim lasts without a heartbeat; one comes three times as often"
    )
    claim_wait_s: float = Field(
        0.0, ge=0, le=86400, description="how long a run waits for a work item that somebody else holds"
    )
    max_session_age_ms: int | None = Field(
        86_400_000, ge=0, description="how long after its last use a session may be resumed; null: for ever"
    )
    sweep_on_start: bool = Field(
        True, description="whether the first run of a process drops all stale sessions, in the background"
    )
    agents_file: Path | None = Field(
        None, description="a file of settings by agent; default: agents.json in the current folder, if there is one"
    )
    shutdown_grace_s: float = Field(
        20.0, gt=0, le=600, description="how long a run that is stopped may take to let go of everything"
    )
    session_role: str | None = Field(
        None, description="ARN of a role to assume for each run, limited to the run's own scope"
    )
    journal_durability: Literal["flush", "fsync", "store"] = Field(
        "flush", description="what an event has to survive before it is shown: the process, the power, this machine"
    )
    journal_ship_s: float = Field(
        1.0, gt=0, le=3600, description="how long events wait for each other on their way to the store"
    )
    mirrors: Path | None = Field(
        None, description="folder for what is derived from journals; default: inside `state`"
    )
    embedder: str | None = Field(
        None, description="what turns texts into vectors, as `package.module:function`; default: Chroma's own model"
    )
    live_mirror: bool = Field(True, description="whether runs keep the search mirror of this machine up to date")
    upload_traces: bool = Field(True, description="whether a run's messages are put into the store at its end")
    repositories: dict[str, RepositoryOptions] = Field(
        default_factory=dict, description="how to check out each repository, by its URL or path"
    )
    git_author: str | None = Field(
        None, description="who an agent's commits are by, as in `Name <mail@host>`; default: the agent's name"
    )
    git_committer: str | None = Field(None, description="who commits them; default: the author")
    git_credentials: dict[str, GitCredential] = Field(
        default_factory=dict,
        description="where the tokens for git's remotes come from, by the beginning of their URLs",
    )
    git_ca_file: Path | None = Field(
        None, description="the certificates that git's remotes are checked against, in place of the machine's"
    )
    git_config_file: Path | None = Field(
        None, description="a file of git configuration that is read in place of the machine's and the user's"
    )
    workdir_rescue: Literal["quarantine", "push"] = Field(
        "quarantine", description="what becomes of unsaved work where a workdir has to go"
    )
    workdir_max_age_s: float = Field(
        604_800.0, gt=0, description="how long a workdir or a cache stays that nobody uses"
    )
    workdirs_quota_bytes: int | None = Field(
        None, ge=0, description="how much room workdirs and caches may take; default: no limit"
    )
    workdirs_free_bytes: int = Field(
        1 << 30, ge=0, description="how much room is kept free on the disk that workdirs are on"
    )
    workdirs_sweep_s: float = Field(
        86_400.0,
        ge=0,
        description="how long after the last sweep a run or the service begins another one; 0: never",
    )
    serve_host: str = Field("127.0.0.1", min_length=1, description="the address that the service listens on")
    serve_port: int = Field(8420, ge=0, le=65535, description="the port that the service listens on; 0: any free one")
    serve_names: tuple[str, ...] = Field(
        (), description="the host names that the service answers to; default: any, on loopback only its own"
    )
    webhook_secrets: dict[ForgeName, tuple[SecretStr, ...]] = Field(
        default_factory=dict, description="what forges sign their webhooks with; those of a forge without are refused"
    )
    webhook_limit_bytes: int = Field(
        5 << 20, ge=1024, le=25 << 20, description="how large a webhook may be; GitHub sends none over 25 MiB"
    )
    admin_token: SecretStr | None = Field(
        None, description="what admin requests have to bring; default: nobody can make any"
    )
    admin_remote: bool = Field(False, description="whether admin requests may come from other machines")
    read_token: SecretStr | None = Field(
        None, description="what the dashboard and the API want to be brought; default: nothing"
    )
    dashboard_refresh_s: float = Field(
        2.0, ge=0.1, le=3600, description="how often the dashboard looks for news while somebody watches"
    )
    logbook_days: int = Field(
        30, ge=1, le=3650, description="how long it is kept which webhooks came, and what admins did"
    )
    git_timeout_s: float = Field(600.0, gt=0, le=86400, description="how long one git command may take")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="least level that is logged")
    s3_express: bool | None = Field(
        None, description="whether the bucket is a directory bucket; default: if its name ends in --x-s3"
    )
    s3_sse: Literal["s3", "kms", "kms-dsse", "c"] | None = Field(
        None, description="how S3 encrypts what it stores; default: as the bucket says"
    )
    s3_sse_kms_key: str | None = Field(None, description="id or ARN of the KMS key, for kms and kms-dsse")
    s3_sse_bucket_key: bool | None = Field(None, description="whether KMS is asked once for many objects, for kms")
    s3_sse_customer_key_file: Path | None = Field(
        None, description="file with a key of 32 bytes, raw or in base64, for c"
    )
    aws_endpoint_url: str | None = Field(None, validation_alias=_alias("AWS_ENDPOINT_URL"), description="as in AWS")
    aws_endpoint_url_s3: str | None = Field(
        None,
        validation_alias=_alias("AWS_ENDPOINT_URL_S3"),
        description="as in AWS; goes before the general one",
    )
    aws_endpoint_url_sts: str | None = Field(
        None,
        validation_alias=_alias("AWS_ENDPOINT_URL_STS"),
        description="as in AWS; goes before the general one",
    )
    aws_endpoint_url_dynamodb: str | None = Field(
        None,
        validation_alias=_alias("AWS_ENDPOINT_URL_DYNAMODB"),
        description="as in AWS; goes before the general one",
    )
    aws_region: str | None = Field(
        None,
        validation_alias=AliasChoices("aws_region", "AWS_REGION", "AWS_DEFAULT_REGION"),
        description="as in AWS: of the bucket, the registry's table, and STS",
    )
    aws_profile: str | None = Field(
        None, validation_alias=_alias("AWS_PROFILE"), description="as in AWS; needs boto3"
    )

    @field_validator(AGE, mode="before")
    @classmethod
    def _whole_or_none(cls, value: object) -> object:
        """TOML has no null, so it is a word there; and neither `true` nor `1.0` is meant to be a millisecond."""
        if isinstance(value, bool | float):
            raise ValueError("it has to be a whole number of milliseconds, or null")  # noqa: TRY004
        return None if value == "null" else value

    @field_validator("webhook_secrets", mode="before")
    @classmethod
    def _several_or_one(cls, value: object) -> object:
        """While a secret is exchanged there are two; mostly there is one."""
        if not isinstance(value, dict):
            return value
        return {forge: (said,) if isinstance(said, str | SecretStr) else said for forge, said in value.items()}

    @field_validator("admin_token", "read_token")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _check_secret(value)
        return value

    @field_validator("webhook_secrets")
    @classmethod
    def _all_long_enough(
        cls, value: dict[ForgeName, tuple[SecretStr, ...]]
    ) -> dict[ForgeName, tuple[SecretStr, ...]]:
        for secrets in value.values():
            for each in secrets:
                _check_secret(each)
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keywords go before the environment, the environment before the file."""
        return init_settings, env_settings, _ConfigFile(settings_cls)

    @classmethod
    def load(cls, **given: Any) -> Settings:
        """Read the settings.

        Args:
            given: Settings that go before all others; those that are `None` are left out.

        Raises:
            Invalid: A value has the wrong type, a variable or a key of `everturn.toml` is unknown, the file is not
                TOML, or there is something wrong with the agents file.
        """
        known = {PREFIX + name.upper() for name, field in cls.model_fields.items() if field.validation_alias is None}
        for name in os.environ:
            if name.startswith(PREFIX) and name not in known | {RUN_MARKER}:
                raise Invalid(
                    f"there is no setting {name}", hint="check its spelling; docs/settings.md lists them all"
                )
        try:
            settings = cls(**{name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(piece) for piece in first["loc"])
            raise Invalid(
                f"the setting {name} is wrong: {first['msg']}",
                hint=f"see docs/settings.md; it comes from EVERTURN_{str(first['loc'][0]).upper()} or {CONFIG_FILE}",
            ) from None
        except ValueError as error:
            raise Invalid(f"{CONFIG_FILE} cannot be read: {error}", hint="it has to be TOML") from None
        settings.session_ages()
        return settings

    def store_url(self) -> str:
        """Return the URL of the object store."""
        return self.store or (self.state.absolute() / "store").as_uri()

    def registry_url(self) -> str:
        """Return the URL of the registry."""
        return self.registry or f"sqlite://{self.state.absolute() / 'registry.db'}"

    def session_ages(self) -> SessionAges:
        """Return how old sessions may get, by agent if there is an agents file. Reads that file.

        Raises:
            Invalid: The file is not there, cannot be read, or says something that we do not understand.
        """
        agents = self._agents()
        ages = {name: values[AGE] for name, values in agents.items() if AGE in values}
        return SessionAges(self.max_session_age_ms, ages)

    def git_identity(self, agent: str | None) -> tuple[str | None, str | None]:
        """Return who an agent's commits are by, and who commits them, as far as that is set. Reads the agents file.

        Raises:
            Invalid: As `session_ages`.
        """
        said = self._agents().get(agent or "", {})
        return said.get(_AUTHOR, self.git_author), said.get(_COMMITTER, self.git_committer)

    def repository_options(self, repo: str) -> RepositoryOptions:
        """Return how a repository is to be checked out, however its URL or path is spelled."""
        name = repository_name(repo)
        found = (options for url, options in self.repositories.items() if repository_name(url) == name)
        return next(found, RepositoryOptions())

    def token_variables(self) -> list[str]:
        """Return the variables with tokens and secrets in them: agents are not to see those."""
        named = {each.token_env for each in self.git_credentials.values() if each.token_env is not None}
        return sorted(named | {PREFIX + name.upper() for name in _SECRETS})

    def secrets_of(self, forge: ForgeName) -> tuple[str, ...]:
        """Return what a forge may sign its webhooks with; nothing: they are refused."""
        return tuple(each.get_secret_value() for each in self.webhook_secrets.get(forge, ()))

    def agents(self) -> list[str]:
        """Return the agents that the agents file says something of. Reads that file.

        Raises:
            Invalid: As `session_ages`.
        """
        return sorted(self._agents())

    def _agents(self) -> dict[str, dict[str, Any]]:
        if self.agents_file is None and not Path(AGENTS_FILE).is_file():
            return {}
        return _read_agents(self.agents_file or Path(AGENTS_FILE))

    def runs_path(self) -> Path:
        """Return the folder in which each run keeps what it needs on this machine."""
        return self.state.absolute() / "runs"

    def mirrors_path(self) -> Path:
        """Return the folder for what is derived from journals."""
        return (self.mirrors or self.state / "mirrors").absolute()

    def logbook_path(self) -> Path:
        """Return the file in which the service keeps what has come in, and what it did."""
        return self.state.absolute() / "logbook.db"

    def workdirs_path(self) -> Path:
        """Return the folder for caches and workdirs."""
        return (self.workdirs or self.state / "workdirs").absolute()


def _read_agents(file: Path) -> dict[str, dict[str, Any]]:
    """Return what a file says of each agent."""
    agents = _read_json(file)
    if not isinstance(agents, dict):
        raise Invalid(f"{file} is no object of agents", hint=_AGENTS_HINT)
    for agent, values in agents.items():
        if not isinstance(values, dict):
            raise Invalid(f"{file} gives the agent {agent!r} no object of settings", hint=_AGENTS_HINT)
        for key, value in values.items():
            _check_agents_setting(file, agent, key, value)
    return agents


def _check_agents_setting(file: Path, agent: str, key: str, value: object) -> None:
    if key not in {AGE, _AUTHOR, _COMMITTER}:
        raise Invalid(f"{file} gives the agent {agent!r} the unknown setting {key!r}", hint=_AGENTS_HINT)
    if key == AGE:
        right = value is None or (type(value) is int and value >= 0)
        hint = "give a whole number of milliseconds, not below 0, or null for ever"
    else:
        right, hint = isinstance(value, str), 'give a name and an address, as in "Fixer <fixer@example.org>"'
    if not right:
        raise Invalid(f"{file} gives the agent {agent!r} a wrong {key}: {value!r}", hint=hint)


def _read_json(file: Path) -> object:
    try:
        return json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error.strerror}", hint="check the setting agents_file") from None
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{file} cannot be read: {error}", hint="it has to be JSON") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse an object that says two things under one name."""
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return dict(pairs)


def read_variable(name: str) -> str | None:
    """Return a variable of this process as it is now; `None` if there is none."""
    return os.environ.get(name)


def inherited_environment() -> dict[str, str]:
    """Return a copy of this process's environment, for children that are meant to inherit it."""
    return dict(os.environ)


def agent_folder() -> Path:
    """Return the folder in which the agent command of this machine keeps its sessions and settings."""
    named = os.environ.get("CLAUDE_CONFIG_DIR")
    return Path(named).expanduser() if named else _home() / ".claude"
