"""Where sessions are stored: an ordinary bucket, or a directory bucket of S3 Express."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import Aws, Duration, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3express as s3express
from constructs import Construct

from everturn_infra.acknowledged import no_access_logs, objects_of_folders
from everturn_infra.agreed import CREATED, KEPT_AS_SESSIONS, LOGS, SPARE_DAYS, below
from everturn_infra.options import Options


def removal(options: Options) -> RemovalPolicy:
    """Return what becomes of data when the stack is deleted."""
    return RemovalPolicy.RETAIN if options.keep_data else RemovalPolicy.DESTROY


def encryption_key(scope: Construct, options: Options) -> kms.IKey | None:
    """Return the KMS key that the bucket encrypts with, made here or elsewhere; `None`: S3's own keys."""
    if options.kms_key is None:
        return None
    if options.kms_key != "new":
        return kms.Key.from_key_arn(scope, "Key", options.kms_key)
    return kms.Key(
        scope,
        "Key",
        description="Everturn: transcripts",
        enable_key_rotation=True,
        removal_policy=removal(options),
    )


class SessionBucket(Construct):
    """A bucket for transcripts: encrypted, closed to the public, and with no way to write over a part.

    Args:
        scope: Where it belongs.
        construct_id: Its id there.
        options: Its name, versions and retention.
        key: The KMS key it encrypts with; S3's own otherwise.

    Attributes:
        bucket: The bucket.
    """

    def __init__(self, scope: Construct, construct_id: str, options: Options, *, key: kms.IKey | None) -> None:
        super().__init__(scope, construct_id)
        self._options = options
        self.key = key
        logs = options.access_logs_bucket
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            bucket_name=options.bucket_name,
            encryption=s3.BucketEncryption.KMS if key else s3.BucketEncryption.S3_MANAGED,
            encryption_key=key,
            bucket_key_enabled=True if key else None,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            versioned=options.versioning,
            removal_policy=removal(options),
            lifecycle_rules=_lifecycle(options),
            server_access_logs_bucket=s3.Bucket.from_bucket_name(self, "AccessLogs", logs) if logs else None,
            server_access_logs_prefix=f"{options.stack_name}/" if logs else None,
        )
        if logs is None:
            no_access_logs(self.bucket)

    @property
    def url(self) -> str:
        """The setting `store`."""
        return f"s3://{below(self.bucket.bucket_name, self._options.root)}".rstrip("/")

    def refuse_overwriting(self, service_role: iam.IRole) -> None:
        """Refuse whatever is not created with `If-None-Match`, where the format says that nothing is written over.

        Args:
            service_role: Who deletes sessions. A deletion writes over a log's youngest parts, to keep their numbers
                taken, so in logs this role may.
        """
        logs = self._refusal("WrittenOnceInLogs", [f"{folder}/*" for folder in LOGS])
        logs.add_condition("ArnNotEquals", {"aws:PrincipalArn": service_role.role_arn})
        self.bucket.add_to_resource_policy(logs)
        self.bucket.add_to_resource_policy(self._refusal("WrittenOnce", CREATED))

    def grant_all(self, role: iam.Role) -> None:
        """Let a role do all that the store is used for, with all scopes."""
        self.grant_objects(role, "Objects", ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], ["*"])
        self.grant_listing(role, ["*"])

    def grant_listing(self, role: iam.Role, paths: Sequence[str]) -> None:
        """Let a role list. It is also what makes S3 say of an object that it is not there, rather than nothing.

        Args:
            role: The role.
            paths: Paths of the format, which prefixes of listings have to be like.
        """
        keys = [below(self._options.root, path) for path in paths]
        role.add_to_policy(
            iam.PolicyStatement(
                sid="Listing",
                actions=["s3:ListBucket"],
                resources=[self.bucket.bucket_arn],
                conditions=None if keys == ["*"] else {"StringLike": {"s3:prefix": keys}},
            )
        )

    def grant_objects(self, role: iam.Role, sid: str, actions: Sequence[str], paths: Sequence[str]) -> None:
        """Let a role do something with objects.

        Args:
            role: The role.
            sid: The statement's id.
            actions: What it may do.
            paths: Paths of the format; `*` at the end of one stands for anything.
        """
        keys = [below(self._options.root, path) for path in paths]
        resources = [self.bucket.arn_for_objects(key) for key in keys]
        role.add_to_policy(iam.PolicyStatement(sid=sid, actions=list(actions), resources=resources))
        objects_of_folders(role, self.bucket, [key for key in keys if key.endswith("*")])

    def grant_key(self, role: iam.Role) -> None:
        """Let a role use the bucket's key, through S3 in this region only."""
        _grant_key(role, self.key, "s3")

    def _refusal(self, sid: str, paths: Sequence[str]) -> iam.PolicyStatement:
        return iam.PolicyStatement(
            sid=sid,
            effect=iam.Effect.DENY,
            principals=[iam.AnyPrincipal()],
            actions=["s3:PutObject"],
            resources=[self.bucket.arn_for_objects(below(self._options.root, path)) for path in paths],
            conditions={"Null": {"s3:if-none-match": "true"}},
        )


class ExpressBucket(Construct):
    """A directory bucket of S3 Express, for a fleet in one zone.

    It gives access as a whole or not at all, so there are no rights by task with it, and it has no versions.

    Args:
        scope: Where it belongs.
        construct_id: Its id there.
        options: Its zone, name and retention.
        key: The KMS key it encrypts with; S3's own otherwise.

    Attributes:
        bucket: The bucket.
    """

    def __init__(self, scope: Construct, construct_id: str, options: Options, *, key: kms.IKey | None) -> None:
        super().__init__(scope, construct_id)
        self._options = options
        self._name = f"{options.bucket_name}--{options.express_zone}--x-s3"
        bucket = s3express.CfnDirectoryBucket
        algorithm = bucket.ServerSideEncryptionByDefaultProperty(
            sse_algorithm="aws:kms" if key else "AES256", kms_master_key_id=key.key_arn if key else None
        )
        self.key = key
        self.bucket = bucket(
            self,
            "Bucket",
            bucket_name=self._name,
            location_name=options.express_zone or "",
            data_redundancy="SingleAvailabilityZone",
            bucket_encryption=bucket.BucketEncryptionProperty(
                server_side_encryption_configuration=[
                    bucket.ServerSideEncryptionRuleProperty(
                        server_side_encryption_by_default=algorithm, bucket_key_enabled=True if key else None
                    )
                ]
            ),
            lifecycle_configuration=bucket.LifecycleConfigurationProperty(
                rules=[_express_rule(rule) for rule in _lifecycle(options)]
            ),
        )
        self.bucket.apply_removal_policy(removal(options))
        self._let_rules_delete()

    @property
    def url(self) -> str:
        """The setting `store`."""
        return f"s3://{below(self._name, self._options.root)}".rstrip("/")

    def grant_all(self, role: iam.Role) -> None:
        """Let a role open sessions with the bucket, which is all that it can be given."""
        role.add_to_policy(
            iam.PolicyStatement(sid="Objects", actions=["s3express:CreateSession"], resources=[self.bucket.attr_arn])
        )

    def grant_key(self, role: iam.Role) -> None:
        """Let a role use the bucket's key, through S3 Express in this region only."""
        _grant_key(role, self.key, "s3express")

    def _let_rules_delete(self) -> None:
        """Let S3 do what the lifecycle rules say. In a directory bucket it may not otherwise, and does not tell."""
        statement = iam.PolicyStatement(
            sid="LifecycleRules",
            principals=[iam.ServicePrincipal("lifecycle.s3.amazonaws.com")],
            actions=["s3express:CreateSession"],
            resources=[self.bucket.attr_arn],
            conditions={"StringEquals": {"s3express:SessionMode": "ReadWrite"}},
        )
        policy = iam.PolicyDocument(statements=[statement])
        s3express.CfnBucketPolicy(self, "Policy", bucket=self.bucket.ref, policy_document=policy)


def _grant_key(role: iam.Role, key: kms.IKey | None, service: str) -> None:
    if key is None:
        return
    role.add_to_policy(
        iam.PolicyStatement(
            sid="Encryption",
            actions=["kms:GenerateDataKey", "kms:Decrypt"],
            resources=[key.key_arn],
            conditions={"StringEquals": {"kms:ViaService": f"{service}.{Aws.REGION}.{Aws.URL_SUFFIX}"}},
        )
    )


def _lifecycle(options: Options) -> list[s3.LifecycleRule]:
    """Return the rules that come behind Everturn's own expiry, and those for what nobody else clears away."""
    retention = options.retention_days
    ages = dict.fromkeys(KEPT_AS_SESSIONS, None if retention is None else retention + SPARE_DAYS)
    ages |= {"traces": options.trace_days, "damaged": options.damaged_days}
    rules = [
        s3.LifecycleRule(
            id=f"expire-{folder}", prefix=below(options.root, f"{folder}/"), expiration=Duration.days(days)
        )
        for folder, days in ages.items()
        if days is not None
    ]
    rules.append(s3.LifecycleRule(id="uploads", abort_incomplete_multipart_upload_after=Duration.days(1)))
    if options.versioning:
        rules.append(
            s3.LifecycleRule(
                id="deleted",
                noncurrent_version_expiration=Duration.days(options.noncurrent_days),
                expired_object_delete_marker=True,
            )
        )
    return rules


def _express_rule(rule: s3.LifecycleRule) -> s3express.CfnDirectoryBucket.RuleProperty:
    uploads = s3express.CfnDirectoryBucket.AbortIncompleteMultipartUploadProperty(days_after_initiation=1)
    return s3express.CfnDirectoryBucket.RuleProperty(
        id=rule.id,
        status="Enabled",
        prefix=rule.prefix,
        expiration_in_days=rule.expiration.to_days() if rule.expiration else None,
        abort_incomplete_multipart_upload=uploads if rule.abort_incomplete_multipart_upload_after else None,
    )
