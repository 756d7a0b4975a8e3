"""The main job, shown: a worker dies in the middle of a turn, and another one finishes its work."""

from everturn.demo.stage import DemoOptions, perform
from everturn.demo.verdict import Report

__all__ = ["DemoOptions", "Report", "perform"]
