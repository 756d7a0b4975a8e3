"""The main job, shown: a worker dies in the middle of a turn, and another one finishes its work."""

from everturn.demo.stage import DemoOptions, Report, perform

__all__ = ["DemoOptions", "Report", "perform"]
