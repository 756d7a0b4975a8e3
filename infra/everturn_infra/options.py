"""What can be chosen: the keys of the CDK context, each with its default (docs/aws.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, Literal, Self, get_args

Scoping = Literal["tags", "session-policy"]

# What means itself to IAM, to a lifecycle rule and in a URL.
_ROOT = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_ZONE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*-az[0-9]+")
_ACCOUNT = re.compile(r"[0-9]{12}")
_ARN = re.compile(r"arn:aws[a-z-]*:[a-z0-9-]+:[a-z0-9-]*:[0-9]*:.+")
_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]+(\.fifo)?")
_KEY = re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+")
_SERVICE = re.compile(r"[a-z0-9.-]+\.amazonaws\.com(\.cn)?")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_LOG_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


class Wrong(ValueError):
    """An option that cannot be used. One sentence says which, and what it could be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a stack is made of. Each one is a key of the context, by the same name.

    Args:
        stack_name: The stack's name.
        bucket_name: The bucket's name; AWS makes one up otherwise. With `express_zone`: its beginning, and needed.
        table_name: The table's name; AWS makes one up otherwise.
        root: The prefix in the bucket that everything lies below; may be empty.
        express_zone: The id of a zone, as in `use1-az4`: the store is an S3 Express directory bucket there.
        scoping: What limits a task's credentials: `tags`: the session role itself, by the session tag
            `everturn-task-id`; `session-policy`: the policy that Everturn sends, and the role is as wide as `root`.
        service_principals: Who may assume the service role: names of AWS services, ARNs or account ids.
        worker_principals: Who else than the service role may assume the session role: ARNs or account ids.
        repos: Patterns of repositories; the session role is for no others. Empty: for any.
        service_role_name: The service role's name; AWS makes one up otherwise.
        session_role_name: The session role's name; AWS makes one up otherwise.
        kms_key: What the bucket encrypts with: `new`: a KMS key of the stack; an ARN: that key; None: S3's own keys.
        versioning: Whether the bucket keeps what is deleted, for `noncurrent_days`.
        noncurrent_days: How long that is kept, in days.
        retention_days: The age at which `everturn sessions expire` deletes sessions, in days; lifecycle rules delete
            what is left 30 days later. None: no rule.
        trace_days: How long traces are kept, in days. None: no rule.
        damaged_days: How long what a repair took away is kept, in days. None: no rule.
        access_logs_bucket: The name of a bucket that takes the session bucket's access logs.
        point_in_time_recovery: Whether the table can be restored to any second of the last 35 days.
        keep_data: Whether bucket, table, key and logs stay when the stack is deleted.
        log_groups: The names of log groups that Everturn's lines are in already. Empty: the stack makes one.
        log_group_name: The name of the one that the stack makes; AWS makes one up otherwise.
        lines_in: The field that a collector puts Everturn's line into, as in `log_processed`. None: into none.
        log_days: How long that one keeps lines, in days; one of the numbers that CloudWatch Logs takes.
        alarms: Whether there are metric filters and alarms.
        alarm_topics: ARNs of SNS topics that hear of all alarms.
        page_topics: ARNs of SNS topics that hear of those alarms that somebody is woken for.
        alarm_email: An address that hears of all alarms, through a topic of the stack.
        sweep_hours: How long no sweep may have gone well before there is an alarm; a multiple of 6, at most 168.
        dashboard: Whether there is a dashboard.

    Raises:
        Wrong: A value cannot be used, or two do not go together.
    """

    stack_name: str = "everturn"
    bucket_name: str | None = None
    table_name: str | None = None
    root: str = "everturn"
    express_zone: str | None = None
    scoping: Scoping = "tags"
    service_principals: tuple[str, ...] = ("ecs-tasks.amazonaws.com",)
    worker_principals: tuple[str, ...] = ()
    repos: tuple[str, ...] = ()
    service_role_name: str | None = None
    session_role_name: str | None = None
    kms_key: str | None = None
    versioning: bool = False
    noncurrent_days: int = 30
    retention_days: int | None = None
    trace_days: int | None = None
    damaged_days: int | None = None
    access_logs_bucket: str | None = None
    point_in_time_recovery: bool = True
    keep_data: bool = True
    log_groups: tuple[str, ...] = ()
    log_group_name: str | None = None
    lines_in: str | None = None
    log_days: int = 90
    alarms: bool = True
    alarm_topics: tuple[str, ...] = ()
    page_topics: tuple[str, ...] = ()
    alarm_email: str | None = None
    sweep_hours: int = 48
    dashboard: bool = True

    def __post_init__(self) -> None:
        """Refuse what CloudFormation would refuse later, or what would leave a hole."""
        _check(self.scoping in get_args(Scoping), "scoping", self.scoping, "tags or session-policy")
        _check(self.root == "" or _is_root(self.root), "root", self.root, "letters, digits, - _ . and / inside")
        _check(self.service_principals != (), "service_principals", "empty", "a service's name or an ARN, at least")
        for principal in self.service_principals:
            fits = is_service(principal) or _is_identity(principal)
            _check(fits, "service_principals", principal, "a service's name, an ARN or an account's id")
        for principal in self.worker_principals:
            _check(_is_identity(principal), "worker_principals", principal, "an ARN or an account's id")
        for name in ("alarm_topics", "page_topics"):
            for topic in getattr(self, name):
                _check(bool(_TOPIC.fullmatch(topic)), name, topic, "the ARN of an SNS topic")
        email, key = self.alarm_email, self.kms_key
        _check(email is None or bool(_EMAIL.fullmatch(email)), "alarm_email", email, "one address")
        is_key = key in (None, "new") or bool(_KEY.fullmatch(key or ""))
        _check(is_key, "kms_key", key, "new, or the ARN of a key; an alias is none")
        field = self.lines_in
        _check(field is None or bool(_FIELD.fullmatch(field)), "lines_in", field, "the name of a field")
        hours = self.sweep_hours
        _check(hours % 6 == 0 and 6 <= hours <= 168, "sweep_hours", hours, "a multiple of 6 up to 168")
        self._check_days()
        self._check_express()
        self._check_together()

    def _check_days(self) -> None:
        for name in ("noncurrent_days", "retention_days", "trace_days", "damaged_days", "log_days"):
            days = getattr(self, name)
            _check(days is None or days >= 1, name, days, "one or more")
        _check(self.log_days in _LOG_DAYS, "log_days", self.log_days, f"one of {', '.join(map(str, _LOG_DAYS))}")

    def _check_express(self) -> None:
        zone = self.express_zone
        if zone is None:
            return
        _check(bool(_ZONE.fullmatch(zone)), "express_zone", zone, "the id of a zone, as in use1-az4")
        _check(self.bucket_name is not None, "bucket_name", None, "given with express_zone: the name's beginning")
        _check(not self.versioning, "versioning", True, "false with express_zone, which keeps no versions")
        _check(self.scoping == "tags", "scoping", self.scoping, "left out with express_zone")
        # A directory bucket has no access logs, and no rights by task, so that there is no session role.
        for name in ("access_logs_bucket", "session_role_name", "worker_principals", "repos"):
            _check(not getattr(self, name), name, getattr(self, name), "left out with express_zone")

    def _check_together(self) -> None:
        """Refuse what would be passed over in silence."""
        for name in ("alarm_topics", "page_topics", "alarm_email"):
            _check(self.alarms or not getattr(self, name), name, getattr(self, name), "left out without alarms")
        group = self.log_group_name
        _check(group is None or not self.log_groups, "log_group_name", group, "left out with log_groups")
        groups = self.log_groups  # a line that is counted twice is half an alarm's threshold
        _check(len(set(groups)) == len(groups), "log_groups", groups, "each group once")

    @classmethod
    def from_context(cls, context: Mapping[str, Any]) -> Self:
        """Return the options that a CDK context holds. The CDK's own keys, which have `:`, `/` or `@`, are not ours.

        Text stands for a number, for `true` and `false`, and for a list with commas between its items, as the CDK's
        option `-c` knows nothing but text.

        Raises:
            Wrong: A key is unknown, or its value cannot be used.
        """
        known = {field.name: field for field in fields(cls)}
        given = {name: value for name, value in context.items() if not re.search(r"[:/@]", name)}
        for name in given:
            _check(name in known, "context", name, f"one of {', '.join(sorted(known))}")
        return cls(**{name: _read(known[name], value) for name, value in given.items() if value is not None})


def is_service(principal: str) -> bool:
    """Tell whether a principal is the name of an AWS service."""
    return bool(_SERVICE.fullmatch(principal))


def _is_identity(principal: str) -> bool:
    return bool(_ARN.fullmatch(principal) or _ACCOUNT.fullmatch(principal))


def _is_root(root: str) -> bool:
    return bool(_ROOT.fullmatch(root)) and not {".", ".."} & set(root.split("/"))


def _check(fits: bool, name: str, value: object, wanted: str) -> None:
    if not fits:
        raise Wrong(f"{name}: {value!r} cannot be used; it has to be {wanted}")


def _read(field: Field[Any], value: Any) -> Any:
    """Return a value of the context as the field's type has it."""
    kind = str(field.type)
    if kind.startswith("tuple"):
        return _items(field.name, value)
    if kind == "bool":
        value = {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
        _check(isinstance(value, bool), field.name, value, "true or false")
    elif kind.startswith("int"):
        value = int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value
        _check(isinstance(value, int) and not isinstance(value, bool), field.name, value, "a whole number")
    else:
        _check(isinstance(value, str), field.name, value, "a text")
        value = value or (field.default if field.default is not MISSING and field.name != "root" else "")
    return value


def _items(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = _split(value)
    is_list = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    _check(is_list, name, value, "a list of texts")
    return tuple(item for item in value if item)


def _split(text: str) -> Any:
    if not text.startswith("["):
        return [item.strip() for item in text.split(",")]
    try:
        return json.loads(text)
    except ValueError:
        return text  # which is no list
