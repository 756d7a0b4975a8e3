"""The server of `LoopbackAws`. It runs in another environment than ours, so it imports nothing of Everturn.

    python aws_server.py FD

Serves on a socket that it was given, until its standard input ends: it does not outlive whoever started it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any


def main() -> None:
    """Serve."""
    logging.disable(logging.WARNING)
    from hypercorn.asyncio import serve  # noqa: PLC0415
    from hypercorn.config import Config  # noqa: PLC0415
    from ministack.app import app  # noqa: PLC0415

    config = Config()
    config.bind = [f"fd://{int(sys.argv[1])}"]

    async def until_the_input_ends() -> None:
        await asyncio.to_thread(sys.stdin.read)

    serving: Any = app
    asyncio.run(serve(serving, config, shutdown_trigger=until_the_input_ends))


if __name__ == "__main__":
    main()
