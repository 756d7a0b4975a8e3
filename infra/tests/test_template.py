"""What CloudFormation is given."""

from __future__ import annotations

import json
from typing import Any

import pytest

from everturn_infra.rules import COUNTED, RULES, SWEEPER
from synthesized import KEY, STACKS, Synthesized, text

TASK = "task!3a${aws:PrincipalTag/everturn-task-id}"
SERVICE, SESSION = "the service", "one task"


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def resources(statement: dict[str, Any]) -> set[str]:
    return {text(each) for each in as_list(statement["Resource"])}


def refusals(stacks: Synthesized, name: str) -> list[dict[str, Any]]:
    policies = stacks.template(name).all("AWS::S3::BucketPolicy")
    statements = [each for policy in policies for each in policy["Properties"]["PolicyDocument"]["Statement"]]
    return [each for each in statements if each["Effect"] == "Deny" and each["Principal"] == {"AWS": "*"}]


# --- As a whole -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STACKS)
def test_plain_cloudformation_deploys_it(stacks: Synthesized, name: str) -> None:
    file, template = stacks.file(name), stacks.template(name)
    assert file.stat().st_size < 51_200, "more is not taken from a file"
    assert set(template.body) == {"Description", "Resources", "Outputs"}, "no parameters of a bootstrapped account"
    kinds = {each["Type"] for each in template.body["Resources"].values()}
    assert not {kind for kind in kinds if kind.startswith(("AWS::Lambda", "Custom::", "AWS::CDK"))}
    assert "cdk-hnb659fds" not in file.read_text()


def test_data_stays_when_the_stack_is_deleted_unless_it_is_not_to(stacks: Synthesized) -> None:
    for kind in ("AWS::S3::Bucket", "AWS::DynamoDB::Table", "AWS::Logs::LogGroup"):
        assert stacks.template("plain").one(kind)["DeletionPolicy"] == "Retain"
        assert stacks.template("fleeting").one(kind)["DeletionPolicy"] == "Delete"
    assert stacks.template("full").one("AWS::KMS::Key")["DeletionPolicy"] == "Retain"
    assert stacks.template("express").one("AWS::S3Express::DirectoryBucket")["DeletionPolicy"] == "Retain"


def test_nothing_is_named_that_nobody_named(stacks: Synthesized) -> None:
    plain, full = stacks.template("plain"), stacks.template("full")
    assert "BucketName" not in plain.properties("AWS::S3::Bucket")
    assert "TableName" not in plain.properties("AWS::DynamoDB::Table")
    assert not any("RoleName" in each["Properties"] for each in plain.all("AWS::IAM::Role"))
    assert full.properties("AWS::S3::Bucket")["BucketName"] == "acme-agents"
    assert full.properties("AWS::DynamoDB::Table")["TableName"] == "acme-registry"
    assert full.role(SERVICE)["RoleName"] == "everturn-service"
    assert full.role(SESSION)["RoleName"] == "everturn-task"


# --- The bucket -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "full", "fleeting"])
def test_the_bucket_is_closed_to_the_public_and_knows_one_owner(stacks: Synthesized, name: str) -> None:
    bucket = stacks.template(name).properties("AWS::S3::Bucket")
    blocked = bucket["PublicAccessBlockConfiguration"]
    assert blocked == dict.fromkeys(
        ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True
    )
    assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]


def test_the_bucket_encrypts_with_the_key_it_is_given(stacks: Synthesized) -> None:
    def rule(name: str) -> dict[str, Any]:
        bucket = stacks.template(name).properties("AWS::S3::Bucket")
        (only,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        return only

    assert rule("plain")["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    own, other = rule("full"), rule("fleeting")
    assert text(own["ServerSideEncryptionByDefault"]["KMSMasterKeyID"]) == "<Key>"
    assert own["BucketKeyEnabled"] is True
    assert other["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}
    assert stacks.template("full").properties("AWS::KMS::Key")["EnableKeyRotation"] is True


@pytest.mark.parametrize("name", ["plain", "full", "fleeting"])
def test_the_bucket_refuses_requests_without_tls_or_with_an_old_one(stacks: Synthesized, name: str) -> None:
    conditions = [each["Condition"] for each in refusals(stacks, name) if each["Action"] == "s3:*"]
    assert {"Bool": {"aws:SecureTransport": "false"}} in conditions
    assert {"NumericLessThan": {"s3:TlsVersion": 1.2}} in conditions


@pytest.mark.parametrize(("name", "root"), [("plain", "everturn/"), ("full", "")])
def test_nothing_is_written_over_but_young_parts_by_a_deletion(stacks: Synthesized, name: str, root: str) -> None:
    by_sid = {each["Sid"]: each for each in refusals(stacks, name) if "Sid" in each}
    logs, others = by_sid["WrittenOnceInLogs"], by_sid["WrittenOnce"]
    assert logs["Action"] == others["Action"] == "s3:PutObject"
    assert resources(logs) == {f"<SessionsBucket>/{root}{folder}/*" for folder in ("sessions", "journal")}
    created = ("homes/*", "damaged/*", "traces/*", "holds/*", "format.json")
    assert resources(others) == {f"<SessionsBucket>/{root}{path}" for path in created}
    unconditional = {"Null": {"s3:if-none-match": "true"}}
    assert others["Condition"] == unconditional, "nobody is exempt"
    exempt = logs["Condition"].pop("ArnNotEquals")["aws:PrincipalArn"]
    assert text(exempt) == "<ServiceRole>"
    assert logs["Condition"] == unconditional


def test_lifecycle_rules_come_a_month_behind_the_retention(stacks: Synthesized) -> None:
    def rules(name: str) -> dict[str, dict[str, Any]]:
        bucket = stacks.template(name).properties("AWS::S3::Bucket")
        return {each["Id"]: each for each in bucket["LifecycleConfiguration"]["Rules"]}

    assert set(rules("plain")) == {"uploads"}, "nothing is deleted that nobody asked to delete"
    full = rules("full")
    days = {each["Prefix"]: each["ExpirationInDays"] for each in full.values() if "Prefix" in each}
    as_sessions = ("sessions/", "journal/", "summaries/", "catalogs/", "homes/")
    assert days == dict.fromkeys(as_sessions, 120) | {"traces/": 30, "damaged/": 14}
    assert full["uploads"]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert full["deleted"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": 7}
    assert full["deleted"]["ExpiredObjectDeleteMarker"] is True
    assert all(each["Status"] == "Enabled" for each in full.values())


def test_versions_and_access_logs_are_kept_if_asked_for(stacks: Synthesized) -> None:
    plain = stacks.template("plain").properties("AWS::S3::Bucket")
    full = stacks.template("full").properties("AWS::S3::Bucket")
    assert "VersioningConfiguration" not in plain
    assert "LoggingConfiguration" not in plain
    assert full["VersioningConfiguration"] == {"Status": "Enabled"}
    assert full["LoggingConfiguration"] == {"DestinationBucketName": "acme-logs", "LogFilePrefix": "full/"}


def test_a_directory_bucket_stands_in_for_it_in_one_zone(stacks: Synthesized) -> None:
    template = stacks.template("express")
    bucket = template.properties("AWS::S3Express::DirectoryBucket")
    assert bucket["BucketName"] == "agents--use1-az4--x-s3"
    assert (bucket["LocationName"], bucket["DataRedundancy"]) == ("use1-az4", "SingleAvailabilityZone")
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}
    ages = {each["Id"]: each.get("ExpirationInDays") for each in bucket["LifecycleConfiguration"]["Rules"]}
    assert ages["expire-sessions"] == 120
    assert not template.all("AWS::S3::Bucket")


def test_the_rules_of_a_directory_bucket_may_delete_which_they_could_not_by_themselves(stacks: Synthesized) -> None:
    policy = stacks.template("express").properties("AWS::S3Express::BucketPolicy")
    assert text(policy["Bucket"]) == "<SessionsBucket>"
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Action"]) == ("Allow", "s3express:CreateSession")
    assert statement["Principal"] == {"Service": "lifecycle.s3.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"s3express:SessionMode": "ReadWrite"}}
    assert resources(statement) == {"<SessionsBucket>"}


def test_a_directory_bucket_has_no_rights_by_task_so_there_is_no_role_for_them(stacks: Synthesized) -> None:
    template = stacks.template("express")
    assert len(template.all("AWS::IAM::Role")) == 1
    assert "EverturnSessionRole" not in template.outputs()
    statements = template.statements(SERVICE)
    assert statements["Objects"]["Action"] == "s3express:CreateSession"
    assert "Tasks" not in statements


# --- The table ------------------------------------------------------------------------------------------------------


def test_the_table_is_what_the_registry_needs(stacks: Synthesized) -> None:
    table = stacks.template("plain").properties("AWS::DynamoDB::Table")
    assert table["KeySchema"] == [{"AttributeName": "work", "KeyType": "HASH"}]
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["DeletionProtectionEnabled"] is True


def test_recovery_and_protection_can_be_left_out(stacks: Synthesized) -> None:
    express = stacks.template("express").properties("AWS::DynamoDB::Table")
    assert express["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": False}
    assert stacks.template("fleeting").properties("AWS::DynamoDB::Table")["DeletionProtectionEnabled"] is False


# --- The session role -----------------------------------------------------------------------------------------------


def test_a_task_reaches_its_own_folders_and_its_own_row(stacks: Synthesized) -> None:
    statements = stacks.template("plain").statements(SESSION)
    assert set(statements) == {"Written", "Added", "Read", "Listing", "Row"}
    bucket = "<SessionsBucket>/everturn"
    written = ("sessions", "homes", "summaries", "catalogs", "journal", "damaged")
    assert set(statements["Written"]["Action"]) == {"s3:GetObject", "s3:PutObject", "s3:DeleteObject"}
    assert resources(statements["Written"]) == {
        *(f"{bucket}/{folder}/{TASK}/*" for folder in written),
        f"{bucket}/probes/{TASK}.json",
    }
    assert set(statements["Added"]["Action"]) == {"s3:GetObject", "s3:PutObject"}
    assert resources(statements["Added"]) == {f"{bucket}/traces/{TASK}/*"}
    assert statements["Read"]["Action"] == "s3:GetObject"
    assert resources(statements["Read"]) == {f"{bucket}/holds/{TASK}/*", f"{bucket}/format.json"}
    prefixes = statements["Listing"]["Condition"]["StringLike"]["s3:prefix"]
    assert set(prefixes) == {
        *(f"everturn/{folder}/{TASK}/*" for folder in (*written, "traces", "holds")),
        "everturn/format.json",
    }
    row = statements["Row"]
    assert row["Condition"] == {
        "ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["task:${aws:PrincipalTag/everturn-task-id}"]}
    }
    assert "dynamodb:Scan" not in row["Action"], "without a key, that condition would hold"
    assert resources(row) == {"<RegistryTable>"}


def test_without_a_tag_the_role_cannot_be_assumed(stacks: Synthesized) -> None:
    (statement,) = stacks.template("plain").role(SESSION)["AssumeRolePolicyDocument"]["Statement"]
    assert text(statement["Principal"]["AWS"]) == "<ServiceRole>"
    assert set(statement["Action"]) == {"sts:AssumeRole", "sts:TagSession"}
    assert statement["Condition"] == {
        "Null": {"aws:RequestTag/everturn-task-id": "false"},
        "StringNotLike": {"aws:RequestTag/everturn-task-id": "*/*"},
    }


def test_whoever_else_may_assume_it_does_so_under_the_same_conditions(stacks: Synthesized) -> None:
    first, second = stacks.template("full").role(SESSION)["AssumeRolePolicyDocument"]["Statement"]
    assert second["Principal"] == {"AWS": "arn:aws:iam::123456789012:role/runner"}
    assert (
        first["Condition"]
        == second["Condition"]
        == {
            "Null": {"aws:RequestTag/everturn-task": "false"},
            "StringLike": {"aws:RequestTag/everturn-repo": ["https://git.example/acme/*"]},
        }
    )


def test_scoped_by_a_session_policy_the_role_is_as_wide_as_the_store(stacks: Synthesized) -> None:
    statements = stacks.template("full").statements(SESSION)
    assert resources(statements["Objects"]) == {"<SessionsBucket>/*"}
    assert "Condition" not in statements["Listing"], "the bucket is the store's alone"
    assert "Condition" not in statements["Row"]
    assert "dynamodb:Scan" not in statements["Row"]["Action"]


@pytest.mark.parametrize(("name", "purpose"), [("full", SESSION), ("full", SERVICE), ("fleeting", SESSION)])
def test_the_key_is_used_through_s3_alone(stacks: Synthesized, name: str, purpose: str) -> None:
    statement = stacks.template(name).statements(purpose)["Encryption"]
    assert set(statement["Action"]) == {"kms:GenerateDataKey", "kms:Decrypt"}
    assert resources(statement) == {"<Key>" if name == "full" else KEY}
    assert text(statement["Condition"]["StringEquals"]["kms:ViaService"]) == "s3.<Region>.<URLSuffix>"


# --- The service role -----------------------------------------------------------------------------------------------


def test_the_service_reaches_the_store_the_table_and_all_tasks_and_nothing_else(stacks: Synthesized) -> None:
    statements = stacks.template("plain").statements(SERVICE)
    assert set(statements) == {"Tasks", "Objects", "Listing", "Registry"}
    assert resources(statements["Tasks"]) == {"<TaskRole>"}
    assert resources(statements["Objects"]) == {"<SessionsBucket>/everturn/*"}
    assert as_list(statements["Listing"]["Condition"]["StringLike"]["s3:prefix"]) == ["everturn/*"]
    assert resources(statements["Registry"]) == {"<RegistryTable>"}
    assert "dynamodb:Scan" in statements["Registry"]["Action"]


def test_services_assume_it_for_this_account_only_where_they_say_for_which(stacks: Synthesized) -> None:
    (ecs,) = stacks.template("plain").role(SERVICE)["AssumeRolePolicyDocument"]["Statement"]
    assert ecs["Principal"] == {"Service": "ecs-tasks.amazonaws.com"}
    assert text(ecs["Condition"]["StringEquals"]["aws:SourceAccount"]) == "<AccountId>"
    ec2, pods, account = stacks.template("full").role(SERVICE)["AssumeRolePolicyDocument"]["Statement"]
    assert "Condition" not in ec2
    assert "Condition" not in pods
    assert set(pods["Action"]) == {"sts:AssumeRole", "sts:TagSession"}
    assert text(account["Principal"]["AWS"]) == "arn:<Partition>:iam::123456789012:root"
    assert len(stacks.template("full").all("AWS::IAM::InstanceProfile")) == 1
    assert not stacks.template("plain").all("AWS::IAM::InstanceProfile")


# --- What is watched ------------------------------------------------------------------------------------------------


def test_each_counted_event_has_a_filter_on_each_log_group(stacks: Synthesized) -> None:
    def filters(name: str) -> dict[tuple[str, str], str]:
        found = [each["Properties"] for each in stacks.template(name).all("AWS::Logs::MetricFilter")]
        for each in found:
            (made,) = each["MetricTransformations"]
            assert text(made["MetricNamespace"]) == "Everturn/<StackName>"
            assert made["DefaultValue"] == 0
        return {
            (text(each["LogGroupName"]), each["FilterPattern"]): each["MetricTransformations"][0]["MetricValue"]
            for each in found
        }

    plain = filters("plain")
    assert set(plain) == {("<LogGroup>", f'{{ $.event = "{each.event}" }}') for each in COUNTED}
    assert plain["<LogGroup>", '{ $.event = "append_failed" }'] == "1"
    assert plain["<LogGroup>", '{ $.event = "healed" }'] == "$.entries"
    full = filters("full")
    assert {group for group, _ in full} == {"/ecs/workers", "/ecs/service"}
    assert full["/ecs/workers", '{ $.log_processed.event = "healed" }'] == "$.log_processed.entries"
    assert len(full) == 2 * len(COUNTED)
    assert not stacks.template("full").all("AWS::Logs::LogGroup"), "those are there already"


def test_alarms_go_off_by_what_happens_and_one_by_what_does_not(stacks: Synthesized) -> None:
    alarms = [each["Properties"] for each in stacks.template("plain").all("AWS::CloudWatch::Alarm")]
    by_name = {text(each["AlarmName"]).removeprefix("<StackName>-"): each for each in alarms}
    assert set(by_name) == {rule.name for rule in (*RULES, SWEEPER)}
    counted = {each.metric for each in COUNTED}
    for name, alarm in by_name.items():
        assert alarm["MetricName"] in counted
        assert alarm["AlarmDescription"].endswith(f"docs/alarms.md#{name.lower()}")
        is_sweeper = name == SWEEPER.name
        assert alarm["TreatMissingData"] == ("breaching" if is_sweeper else "notBreaching")
        assert alarm["ComparisonOperator"].startswith("LessThan" if is_sweeper else "GreaterThanOrEqualTo")
        assert alarm["Period"] * alarm["EvaluationPeriods"] <= 7 * 86_400, "CloudWatch looks no further back"
    sweeper = by_name[SWEEPER.name]
    assert sweeper["Period"] * sweeper["EvaluationPeriods"] == 48 * 3600
    assert "AlarmActions" not in sweeper


def test_topics_hear_of_alarms_and_the_pager_only_of_those_that_somebody_is_woken_for(stacks: Synthesized) -> None:
    template = stacks.template("full")
    for alarm in (each["Properties"] for each in template.all("AWS::CloudWatch::Alarm")):
        told = [text(each).rpartition(":")[2] for each in alarm["AlarmActions"]]
        is_page = alarm["AlarmDescription"].startswith("page:")
        assert told == ["team", "<AlarmsTopic>", *(["pager"] if is_page else [])]
        assert alarm["OKActions"] == alarm["AlarmActions"]
    subscription = template.properties("AWS::SNS::Subscription")
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "team@acme.example")


def test_cloudwatch_may_send_to_the_topic_of_the_stack(stacks: Synthesized) -> None:
    statements = stacks.template("full").properties("AWS::SNS::TopicPolicy")["PolicyDocument"]["Statement"]
    (allowed,) = (each for each in statements if each["Effect"] == "Allow")
    assert allowed["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert text(allowed["Condition"]["StringEquals"]["aws:SourceAccount"]) == "<AccountId>"


def test_the_dashboard_shows_the_alarms_and_all_that_is_counted(stacks: Synthesized) -> None:
    body = text(stacks.template("plain").properties("AWS::CloudWatch::Dashboard")["DashboardBody"])
    widgets = json.loads(body)["widgets"]
    (alarms,) = (each["properties"]["alarms"] for each in widgets if each["type"] == "alarm")
    assert len(alarms) == len(RULES) + 1
    drawn = [metric for each in widgets if each["type"] == "metric" for metric in each["properties"]["metrics"]]
    assert {metric[1] for metric in drawn if metric[0] == "Everturn/<StackName>"} == {each.metric for each in COUNTED}
    assert {metric[0] for metric in drawn} == {"Everturn/<StackName>", "AWS/DynamoDB", "AWS/S3"}
    (query,) = (each["properties"]["query"] for each in widgets if each["type"] == "log")
    assert query.startswith("SOURCE '<LogGroup>'")


@pytest.mark.parametrize(("name", "line"), [("plain", ""), ("full", "log_processed.")])
def test_the_dashboard_looks_for_complaints_where_the_lines_are(stacks: Synthesized, name: str, line: str) -> None:
    body = text(stacks.template(name).properties("AWS::CloudWatch::Dashboard")["DashboardBody"])
    (query,) = (each["properties"]["query"] for each in json.loads(body)["widgets"] if each["type"] == "log")
    assert f'filter {line}level in ["warning", "error"]' in query
    assert f"coalesce({line}error, {line}reason) as why" in query


def test_alarms_and_dashboard_can_be_left_out(stacks: Synthesized) -> None:
    assert not stacks.template("fleeting").all("AWS::CloudWatch::Dashboard")
    express = stacks.template("express")
    assert not express.all("AWS::CloudWatch::Alarm")
    assert not express.all("AWS::Logs::MetricFilter")


# --- What it tells --------------------------------------------------------------------------------------------------


def test_outputs_are_settings(stacks: Synthesized) -> None:
    plain = stacks.template("plain").outputs()
    settings = {name: value for name, value in plain.items() if name.startswith(("Everturn", "Aws"))}
    assert settings == {
        "EverturnStore": "s3://<SessionsBucket>/everturn",
        "EverturnRegistry": "dynamodb://<RegistryTable>?region=<Region>",
        "EverturnSessionRole": "<TaskRole>",
        "AwsRegion": "<Region>",
    }
    full = stacks.template("full").outputs()
    assert full["EverturnStore"] == "s3://<SessionsBucket>"
    assert (full["EverturnS3Sse"], full["EverturnS3SseKmsKey"]) == ("kms", "<Key>")
    assert full["EverturnS3SseBucketKey"] == "true"
    express = stacks.template("express").outputs()
    assert express["EverturnStore"] == "s3://agents--use1-az4--x-s3/everturn"
    assert "EverturnS3Sse" not in express, "Everturn refuses the setting there"
