"""The way to a server, which can be cut and mended: what a network that goes away looks like from a worker."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

_CHUNK_BYTES = 1 << 16
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets the connection


class Proxy:
    """A port on loopback that leads to a server, as long as it is not cut.

    While it is cut, connections that stand are reset and new ones refused. The port stays ours.

    Args:
        url: Where the server is.
    """

    def __init__(self, url: str) -> None:
        self._upstream = (str(urlsplit(url).hostname), urlsplit(url).port or 80)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = self._bind(0)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.is_cut = True
        self.mend()

    @classmethod
    @contextlib.contextmanager
    def to(cls, url: str) -> Iterator[Proxy]:
        """Lead to a server until the block ends."""
        proxy = cls(url)
        try:
            yield proxy
        finally:
            proxy.cut()
            proxy._listener.close()

    def cut(self) -> None:
        """Reset all connections and refuse new ones."""
        with self._lock:
            if self.is_cut:
                return
            self.is_cut = True
            listener, self._listener = self._listener, self._bind(self._listener.getsockname()[1])
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes whoever accepts
            listener.close()
            for end in self._open:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Lead to the server again."""
        with self._lock:
            if not self.is_cut:
                return
            self.is_cut = False
            self._listener.listen(128)
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    @staticmethod
    def _bind(port: int) -> socket.socket:
        """Hold a port. Until somebody listens at it, connections are refused."""
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(("127.0.0.1", port))
        return bound

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                end, _ = listener.accept()
            except OSError:  # cut
                return
            threading.Thread(target=self._lead, args=(end,), daemon=True).start()

    def _lead(self, end: socket.socket) -> None:
        try:
            server = socket.create_connection(self._upstream)
        except OSError:
            end.close()
            return
        with self._lock:
            self._open |= {end, server}
            cut = self.is_cut
        try:
            if not cut:
                self._pump(end, server)
        finally:
            with self._lock:
                self._open -= {end, server}
            end.close()
            server.close()

    @staticmethod
    def _pump(end: socket.socket, server: socket.socket) -> None:
        other: dict[Any, socket.socket] = {end: server, server: end}
        with selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
            for each in other:
                selector.register(each, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    data = key.fileobj.recv(_CHUNK_BYTES)  # type: ignore[union-attr]
                    if not data:
                        return
                    other[key.fileobj].sendall(data)
