"""A forge on loopback: git over HTTPS with a password, another host that writes down what it is sent, and a proxy."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

GIT = ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]


@dataclass(frozen=True)
class Authority:
    """Somebody who signs certificates, and a certificate for loopback that they signed."""

    ca_file: Path
    server_file: Path

    @classmethod
    def make(cls, folder: Path, name: str) -> Authority:
        folder.mkdir(parents=True, exist_ok=True)
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.BasicConstraints(ca=True, path_length=None)
        ca = _certificate(issuer, issuer, ca_key.public_key()).add_extension(usage, critical=True)
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        server = _certificate(subject, issuer, key.public_key()).add_extension(names, critical=False)
        made = cls(folder / f"{name}-ca.pem", folder / f"{name}-server.pem")
        pem = serialization.Encoding.PEM
        made.ca_file.write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        made.server_file.write_bytes(server.sign(ca_key, hashes.SHA256()).public_bytes(pem) + private)
        return made

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_file)
        return context


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


@dataclass
class Host:
    """A host, and all that it was sent: request lines and headers, or what went through it.

    Attributes:
        url: Where it is.
        seen: What it was sent.
        passwords: What it takes; a host without any asks for one for ever.
        redirects: Where requests below a path are sent.
        lies: What it says in place of something else, of the same length.
    """

    url: str = ""
    seen: list[str] = field(default_factory=list)
    passwords: set[str] = field(default_factory=set)
    redirects: dict[str, str] = field(default_factory=dict)
    lies: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def forget(self) -> None:
        """Begin anew."""
        for each in (self.seen, self.passwords, self.redirects, self.lies):
            each.clear()

    def was_told(self, secret: str, username: str = "x-access-token") -> bool:
        """Tell whether it was sent a secret, plain or as HTTP spells it."""
        spellings = [secret, basic(username, secret)]
        return any(spelling in text for text in self.seen for spelling in spellings)

    def allows(self, header: str | None) -> bool:
        with suppress(ValueError):
            _, _, password = base64.b64decode((header or "").removeprefix("Basic ")).decode().partition(":")
            return password in self.passwords
        return False


def basic(username: str, password: str) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up, or does not trust the certificate, is what tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host: Host
    root: Path

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.host.seen.append(f"{self.requestline}\n{self.headers}")
        body = self._body()
        for path, target in self.host.redirects.items():
            if self.path.startswith(path):
                self._reply(302, {"Location": target + self.path.removeprefix(path)})
                return
        if not self.host.allows(self.headers["Authorization"]):
            self._reply(401, {"WWW-Authenticate": 'Basic realm="forge"'})
            return
        self._backend(body)

    def _body(self) -> bytes:
        if self.headers["Transfer-Encoding"] != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"] or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _reply(self, code: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _backend(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers["Content-Type"] or "",
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers["Content-Encoding"] or "",
            "GIT_PROTOCOL": self.headers["Git-Protocol"] or "",
            "REMOTE_USER": "somebody",
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=environment, capture_output=True, check=False, timeout=60
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        for truth, lie in self.host.lies.items():
            content = content.replace(truth, lie)
        self._reply(int(headers.pop("Status", "200").split()[0]), headers, content)


class _Proxy(_Handler):
    """A proxy that looks into what passes, if it is let."""

    pretends: ssl.SSLContext | None

    def do_CONNECT(self) -> None:
        self.host.seen.append(f"{self.requestline}\n{self.headers}")
        self.close_connection = True
        self.send_response(200)
        self.end_headers()
        if self.pretends is not None:
            with suppress(OSError), self.pretends.wrap_socket(self.connection, server_side=True) as inside:
                self._pretend(inside)
            return
        address, _, port = self.path.rpartition(":")
        with socket.create_connection((address, int(port))) as other:
            back = threading.Thread(target=self._pass, args=(other, self.connection))
            back.start()
            self._pass(self.connection, other)
            back.join()

    def _pretend(self, inside: ssl.SSLSocket) -> None:
        """Be the host itself: ask for a password, and see what comes."""
        while data := inside.recv(65536):
            self.host.seen.append(data.decode("latin-1"))
            inside.sendall(b'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="forge"\r\nContent-Length: 0\r\n\r\n')

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.host.seen.append(data.decode("latin-1"))
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@contextmanager
def serve(root: Path, authority: Authority | None, name: str = "localhost") -> Iterator[Host]:
    """Serve the repositories below a folder by git's own program; without an authority over plain HTTP."""
    host = Host()
    handler = type("Handler", (_Handler,), {"host": host, "root": root})
    with _Server(("127.0.0.1", 0), handler) as server:
        if authority is not None:
            server.socket = authority.context().wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        host.url = f"{'https' if authority else 'http'}://{name}:{server.server_port}"
        with _running(server):
            yield host


@contextmanager
def proxy(pretends: Authority | None = None) -> Iterator[Host]:
    """Serve a proxy; with an authority it pretends to be whomever one wants to reach."""
    host = Host()
    context = pretends.context() if pretends else None
    handler = type("Handler", (_Proxy,), {"host": host, "pretends": context, "root": Path("/nowhere")})
    with _Server(("127.0.0.1", 0), handler) as server:
        host.url = f"http://127.0.0.1:{server.server_port}"
        with _running(server):
            yield host


@contextmanager
def _running(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def make_bare(path: Path) -> None:
    """Make a bare repository with one commit, that takes pushes."""
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    path.parent.mkdir(parents=True, exist_ok=True)

    def git(*arguments: str, folder: Path) -> str:
        return subprocess.run(
            [*GIT, *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "--quiet", "--bare", str(path), folder=path.parent)
    tree = git("hash-object", "-w", "-t", "tree", os.devnull, folder=path)
    commit = git("commit-tree", "-m", "One", tree, folder=path)
    git("update-ref", "refs/heads/main", commit, folder=path)
    git("config", "http.receivepack", "true", folder=path)
