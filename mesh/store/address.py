"""Where the store is: its nodes, how to log in, and the name that the mesh's keys bear there."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from mesh.errors import SetupError

_MESH_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
DEFAULT_PORT = 6379


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How the server proves who it is, and this process to the server. Paths of PEM files."""

    ca_file: str | None = None
    """Authorities to trust; None: the system's."""
    certificate_file: str | None = None
    """This side's certificate, for servers that ask for one (tls-auth-clients)."""
    key_file: str | None = None
    verify: Literal["required", "none"] = "required"
    """"none" encrypts without knowing to whom."""
    check_hostname: bool = True

    def context(self) -> ssl.SSLContext:
        """An SSL context that does as these options say."""
        context = ssl.create_default_context(cafile=self.ca_file)
        context.check_hostname = self.check_hostname and self.verify == "required"
        context.verify_mode = ssl.CERT_REQUIRED if self.verify == "required" else ssl.CERT_NONE
        if self.certificate_file:
            context.load_cert_chain(self.certificate_file, self.key_file)
        return context


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A store's address; plain values, so that `as_dict` can be passed to other processes.

    Attributes:
        nodes: (host, port) of every server that may be the primary.
        mesh: the mesh's name, part of each of its keys.
    """

    nodes: tuple[tuple[str, int], ...]
    mesh: str = "default"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: TlsOptions | None = None

    def __post_init__(self) -> None:
        if not self.nodes:
            raise SetupError("a store's address names no node; write redis://HOST:PORT")
        if not _MESH_NAME.fullmatch(self.mesh):
            raise SetupError(
                f"mesh name {self.mesh!r}: use 1 to 64 of letters, digits, dot, dash and underscore"
            )

    def __str__(self) -> str:
        scheme = "redis" if self.tls is None else "rediss"
        hosts = ((f"[{host}]" if ":" in host else host, port) for host, port in self.nodes)
        nodes = ",".join(f"{host}:{port}" for host, port in hosts)
        return f"{scheme}://{nodes}/{self.database}"

    @property
    def prefix(self) -> bytes:
        """What each key begins with; the braces keep a shard's keys in one slot of a cluster."""
        return f"raymesh:{{{self.mesh}/0}}:".encode()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, the password included; for another process of the mesh, not for a log."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StoreAddress:
        """The reverse of `as_dict`, lists in place of tuples accepted."""
        tls = TlsOptions(**values["tls"]) if values["tls"] else None
        nodes = tuple((host, port) for host, port in values["nodes"])
        return cls(**{**values, "nodes": nodes, "tls": tls})

    @classmethod
    def from_url(cls, url: str, mesh: str = "default") -> StoreAddress:
        """Read
        redis://[[USER]:PASSWORD@]HOST:PORT[,HOST:PORT...][/DATABASE][?ssl_ca_certs=FILE&...].

        rediss:// stands for TLS; its options are redis-py's: ssl_ca_certs, ssl_certfile,
        ssl_keyfile, ssl_cert_reqs, ssl_check_hostname.

        Raises:
            SetupError: not such a URL. The message never holds the password.
        """
        from redis.connection import parse_url  # 0.2 s to import; a handler gets `as_dict`

        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss"):
            raise SetupError(
                f"a store's URL begins with redis:// or rediss://, not {parts.scheme!r}"
            )
        if parts.path.strip("/") and not parts.path.strip("/").isdigit():
            raise SetupError(
                f"the path of a store's URL is a database's number, not {parts.path!r}"
            )
        login, at, hosts = parts.netloc.rpartition("@")
        try:
            nodes = tuple(_node(host) for host in hosts.split(","))
            one = parts._replace(netloc=f"{login}{at}{hosts.split(',')[0]}").geturl()
            options: dict[str, Any] = parse_url(one)  # type: ignore[no-untyped-call]
        except ValueError as error:
            raise SetupError(f"the store's URL cannot be read: {error}") from None
        return cls(
            nodes,
            mesh,
            options.get("username"),
            options.get("password"),
            options.get("db", 0),
            _tls(options) if parts.scheme == "rediss" else None,
        )


def _node(host: str) -> tuple[str, int]:
    parts = urlsplit(f"redis://{host}")
    return parts.hostname or "localhost", parts.port or DEFAULT_PORT


def _tls(options: Mapping[str, Any]) -> TlsOptions:
    return TlsOptions(
        options.get("ssl_ca_certs"),
        options.get("ssl_certfile"),
        options.get("ssl_keyfile"),
        "none" if options.get("ssl_cert_reqs") == "none" else "required",
        str(options.get("ssl_check_hostname", True)).lower() not in ("false", "0", "no"),
    )
