"""Structured logs: one JSON object a line, on the standard library's logger `everturn`.

A library must not decide where logs go, so nothing is set up on import: a program that configures `logging` gets
our lines with its own, and the `everturn` command calls `log_to_stderr`. No transcript text is ever logged.
"""

from __future__ import annotations

import logging
import sys

import structlog

LOGGER_NAME = "everturn"


def get_logger() -> structlog.stdlib.BoundLogger:
    """Return a logger whose lines carry what was bound with `structlog.contextvars`."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(LOGGER_NAME),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return logger


def log_to_stderr(level: str) -> None:
    """Send the lines to standard error.

    Args:
        level: `debug`, `info`, `warning` or `error`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger(LOGGER_NAME)
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
