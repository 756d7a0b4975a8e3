"""Tools for tests of durable runs: ours, and those of Everturn's users (docs/testing.md)."""

from everturn.testing.aws import LoopbackAws
from everturn.testing.directory_buckets import DirectoryBuckets
from everturn.testing.embedding import word_vectors
from everturn.testing.express import LoopbackExpress
from everturn.testing.faults import Fault, FaultyObjects
from everturn.testing.instant_agent import AgentStart, InstantAgent
from everturn.testing.machines import kill_machine
from everturn.testing.messages_api import Disconnect, Failure, ModelRequest, Reply, Text, Thinking, ToolUse
from everturn.testing.model import ScriptedModel, cli_environment
from everturn.testing.receipts import ReceiptedStore, Verdict, compare, read_receipts
from everturn.testing.repositories import make_repository
from everturn.testing.s3 import LoopbackS3

__all__ = [
    "AgentStart",
    "DirectoryBuckets",
    "Disconnect",
    "Failure",
    "Fault",
    "FaultyObjects",
    "InstantAgent",
    "LoopbackAws",
    "LoopbackExpress",
    "LoopbackS3",
    "ModelRequest",
    "ReceiptedStore",
    "Reply",
    "ScriptedModel",
    "Text",
    "Thinking",
    "ToolUse",
    "Verdict",
    "cli_environment",
    "compare",
    "kill_machine",
    "make_repository",
    "read_receipts",
    "word_vectors",
]
