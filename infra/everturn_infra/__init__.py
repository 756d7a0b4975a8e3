"""The constructs of Everturn's stack on AWS (docs/aws.md)."""

from everturn_infra.alarms import Alarms
from everturn_infra.buckets import ExpressBucket, SessionBucket
from everturn_infra.dashboard import FleetDashboard
from everturn_infra.options import Options
from everturn_infra.registry import RegistryTable
from everturn_infra.roles import ServiceRole, SessionRole
from everturn_infra.stack import EverturnStack

__all__ = [
    "Alarms",
    "EverturnStack",
    "ExpressBucket",
    "FleetDashboard",
    "Options",
    "RegistryTable",
    "ServiceRole",
    "SessionBucket",
    "SessionRole",
]
