"""The S3 server of a benchmark, in a process of its own, with a count of what it was asked.

    python -m bench.server ENGINE PORT

Runs until its standard input ends, so that it does not outlive whoever started it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

from bench.counting import Counts

ENGINES = ("ministack", "moto")


def main() -> None:
    """Serve."""
    engine, port = sys.argv[1], int(sys.argv[2])
    logging.disable(logging.WARNING)
    {"ministack": _ministack, "moto": _moto}[engine](port, Counts())


def _ministack(port: int, counts: Counts) -> None:
    from hypercorn.asyncio import serve  # noqa: PLC0415
    from hypercorn.config import Config  # noqa: PLC0415
    from ministack.app import app  # noqa: PLC0415

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.keep_alive_timeout = 3600
    config.keep_alive_max_requests = 1 << 40

    async def until_the_input_ends() -> None:
        await asyncio.to_thread(sys.stdin.read)

    wrapped: Any = counts.asgi(app)
    asyncio.run(serve(wrapped, config, shutdown_trigger=until_the_input_ends))


def _moto(port: int, counts: Counts) -> None:
    from threading import Thread  # noqa: PLC0415

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app  # noqa: PLC0415
    from werkzeug.serving import make_server  # noqa: PLC0415

    app: Any = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", port, counts.wsgi(app), threaded=True)
    Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    main()
