"""AWS on loopback that refuses what no policy allows: ministack, in a process of its own."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Self
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

from everturn.testing.certificates import Certificates
from everturn.testing.s3 import REGION, LoopbackS3

START_S = 30.0
ACCOUNT = "000000000000"
SERVICES = ("s3", "iam", "sts", "cloudformation", "dynamodb", "kms", "logs", "monitoring", "sns", "ssm")

_numbers = count(1)


@dataclass(frozen=True)
class LoopbackAws:
    """A running server. Signatures are verified; identity, trust, session and resource policies decide.

    Policy variables, `dynamodb:LeadingKeys` and `s3:if-none-match` are of our making: `aws_server.py` says how much.

    Attributes:
        root: The same server as the owner of the account sees it, who may do everything.
        authority: With TLS, the file with the certificate of the authority to trust.
    """

    root: LoopbackS3
    authority: Path | None = None

    @classmethod
    @contextmanager
    def start(cls, python: str | Path, *, tls: bool = False) -> Iterator[Self]:
        """Run a server until the block ends.

        Args:
            python: A Python that has ministack (`pip install ministack`). An environment of its own is best: it pins
                versions of what others use, too.
            tls: Speak TLS, as a policy with `aws:SecureTransport` asks for. Needs cryptography.

        Raises:
            RuntimeError: There is no such Python, or it has no ministack.
        """
        if not Path(python).exists():
            raise RuntimeError(f"there is no {python} to run ministack with; in our repository `make test` makes it")
        with tempfile.TemporaryDirectory() as home, socket.create_server(("127.0.0.1", 0)) as listener:
            made = Certificates.make(Path(home), ["127.0.0.1"]) if tls else None
            root = LoopbackS3(f"{'https' if made else 'http'}://127.0.0.1:{listener.getsockname()[1]}")
            process = subprocess.Popen(
                [
                    *(python, str(Path(__file__).with_name("aws_server.py")), str(listener.fileno())),
                    *((made.server, made.key) if made else ()),
                ],
                env=_environment(home, root),
                stdin=subprocess.PIPE,
                pass_fds=[listener.fileno()],
            )
            listener.close()
            try:
                aws = cls(root, made.authority if made else None)
                aws._wait_until_it_answers(process)
                yield aws
            finally:
                _stop(process)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make AWS clients use it as the owner of the account."""
        return {**self.root.environment, **self.trust}

    @property
    def trust(self) -> dict[str, str]:
        """The variables that make clients trust it, if it speaks TLS."""
        return dict.fromkeys(("AWS_CA_BUNDLE", "SSL_CERT_FILE"), str(self.authority)) if self.authority else {}

    def user(self, *statements: dict[str, Any]) -> dict[str, str]:
        """Make a user who may do what the statements say, and return the variables that make AWS clients be that."""
        name = f"user-{next(_numbers)}"
        iam = self.client("iam")
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=_policy(*statements))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        own = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        return {**self.environment, **own}

    def role(self, *statements: dict[str, Any], trust: dict[str, Any] | None = None) -> str:
        """Make a role and return its ARN.

        Args:
            statements: What it may do.
            trust: Who may assume it; everybody who may assume roles, with session tags, if not given.
        """
        name = f"role-{next(_numbers)}"
        anybody = {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
        }
        iam = self.client("iam")
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=_policy(trust or anybody))
        iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=_policy(*statements))
        return f"arn:aws:iam::{ACCOUNT}:role/{name}"

    def client(self, service: str) -> Any:
        """Return a boto3 client that may do everything.

        Args:
            service: `s3`, `iam`, `sts`, `cloudformation`, `dynamodb`, `kms`, `logs`, `cloudwatch`, `sns`, `ssm`.
        """
        import boto3  # noqa: PLC0415

        variables = self.root.environment
        return boto3.client(
            service,
            endpoint_url=self.root.url,
            region_name=REGION,
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
            verify=self.authority and str(self.authority),
        )

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        """Connect, and be served once the server is up; nobody listens any more if it has died."""
        context = ssl.create_default_context(cafile=self.authority) if self.authority else None
        try:
            # Without a proxy that the environment may name: it would not find our loopback.
            opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))
            with opener.open(f"{self.root.url}/_ministack/health", timeout=START_S):
                return
        except OSError as error:
            how = "did not start" if process.poll() is None else f"ended with status {process.returncode}"
            raise RuntimeError(f"the AWS server {how}; does its Python have ministack?") from error


def _environment(home: str, root: LoopbackS3) -> dict[str, str]:
    return {
        **root.environment,
        "PATH": "/usr/bin:/bin",
        "HOME": home,
        "TMPDIR": home,
        "AUTH": "true",
        "SERVICES": ",".join(SERVICES),
        "LOG_LEVEL": "ERROR",
        "MINISTACK_ACCOUNT_ID": ACCOUNT,
    }


def _policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
