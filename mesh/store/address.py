"""Where the store is: its nodes, how to log in, and the name that the mesh's keys bear there."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit

from mesh.errors import SetupError

_MESH_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
DEFAULT_PORT = 6379
SENTINEL_PORT = 26_379

Nodes = tuple[tuple[str, int], ...]
"""(host, port) of each."""

_SCHEMES = {
    "redis": "redis",
    "rediss": "rediss",
    "redis+sentinel": "redis",
    "rediss+sentinel": "rediss",
}
"""As written, and as redis-py reads the rest of it."""


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
class Sentinels:
    """Whom to ask for the store's nodes.

    Attributes:
        nodes: of the Sentinels; any one is enough for an answer.
        master: the name under which they watch the store.
        username, password: where it is not the store's own login that they want.
    """

    nodes: Nodes
    master: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A store's address; plain values, so that `as_dict` can be passed to other processes.

    Attributes:
        nodes: every server that may be the primary; none where Sentinels are asked for them.
        mesh: the mesh's name, part of each of its keys.
        sentinels: who watches the nodes; where none is named, they are asked for them each time the primary
            is looked for.
        managed: the mesh starts and restarts the nodes itself.
    """

    nodes: Nodes
    mesh: str = "default"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: TlsOptions | None = None
    sentinels: Sentinels | None = None
    managed: bool = False

    def __post_init__(self) -> None:
        if not self.nodes and self.sentinels is None:
            raise SetupError("a store's address names no node; write redis://HOST:PORT")
        if not _MESH_NAME.fullmatch(self.mesh):
            raise SetupError(
                f"mesh name {self.mesh!r}: use 1 to 64 of letters, digits, dot, dash and underscore"
            )

    def __str__(self) -> str:
        scheme = "redis" if self.tls is None else "rediss"
        if self.sentinels is not None and not self.nodes:
            where, master = _joined(self.sentinels.nodes), self.sentinels.master
            return f"{scheme}+sentinel://{where}/{master}/{self.database}"
        return f"{scheme}://{_joined(self.nodes)}/{self.database}"

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
        asked = values.get("sentinels")
        sentinels = Sentinels(**{**asked, "nodes": _pairs(asked["nodes"])}) if asked else None
        nodes = _pairs(values["nodes"])
        return cls(**{**values, "nodes": nodes, "tls": tls, "sentinels": sentinels})

    @classmethod
    def from_url(cls, url: str, mesh: str = "default", password: str = "") -> StoreAddress:
        """Read
        redis://[[USER]:PASSWORD@]HOST:PORT[,HOST:PORT...][/DATABASE][?ssl_ca_certs=FILE&...], or
        redis+sentinel://[[USER]:PASSWORD@]HOST:PORT[,HOST:PORT...]/MASTER[/DATABASE][?...].

        rediss stands for TLS; its options are redis-py's: ssl_ca_certs, ssl_certfile,
        ssl_keyfile, ssl_cert_reqs, ssl_check_hostname. Sentinels with a login that is not the
        store's have sentinel_username and sentinel_password.

        Args:
            password: the store's, where it is not to stand in the URL.

        Raises:
            SetupError: not such a URL. The message never holds the password.
        """
        from redis.connection import parse_url  # 0.2 s to import; a handler gets `as_dict`

        parts = _split(url)
        scheme = _SCHEMES[parts.scheme]
        asks_sentinels = parts.scheme != scheme
        master, database = _path(parts.path, asks_sentinels)
        login, at, hosts = parts.netloc.rpartition("@")
        port = SENTINEL_PORT if asks_sentinels else DEFAULT_PORT
        try:
            nodes = tuple(_node(host, port) for host in hosts.split(","))
            netloc = f"{login}{at}{hosts.split(',')[0]}"
            one = parts._replace(scheme=scheme, netloc=netloc, path=database).geturl()
            options: dict[str, Any] = parse_url(one)  # type: ignore[no-untyped-call]
        except ValueError as error:
            raise SetupError(f"the store's URL cannot be read: {error}") from None
        if password and options.get("password"):
            raise SetupError(
                f"the password of store {hosts} stands both in its URL and in store_password: keep one"
            )
        return cls(
            () if asks_sentinels else nodes,
            mesh,
            options.get("username"),
            password or options.get("password"),
            options.get("db", 0),
            _tls(options) if scheme == "rediss" else None,
            Sentinels(
                nodes, master, options.get("sentinel_username"), options.get("sentinel_password")
            )
            if asks_sentinels
            else None,
        )


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise SetupError(f"the store's URL cannot be read: {error}") from None
    if parts.scheme not in _SCHEMES:
        *others, last = (f"{scheme}://" for scheme in _SCHEMES)
        raise SetupError(
            f"a store's URL begins with {', '.join(others)} or {last}, not {parts.scheme!r}"
        )
    if "@" in url and "@" not in parts.netloc:
        raise SetupError(
            "the store's URL cannot be read: / ? # @ % in a password, and @ among the options, are "
            "written %2F %3F %23 %40 %25"
        )
    return parts


def _path(path: str, asks_sentinels: bool) -> tuple[str, str]:
    """The name of the master that Sentinels watch, if any, and the database's number."""
    master, rest = "", path.strip("/")
    if asks_sentinels:
        master, _, rest = rest.partition("/")
        if not master:
            raise SetupError(
                "a Sentinel's URL names the master that is watched: redis+sentinel://HOST:PORT/MASTER"
            )
    if rest and not rest.isdigit():
        raise SetupError(f"the path of a store's URL ends with a database's number, not {path!r}")
    return unquote(master), f"/{rest}" if rest else ""


def _joined(nodes: Nodes) -> str:
    hosts = ((f"[{host}]" if ":" in host else host, port) for host, port in nodes)
    return ",".join(f"{host}:{port}" for host, port in hosts)


def _pairs(nodes: Iterable[Sequence[Any]]) -> Nodes:
    return tuple((host, port) for host, port in nodes)


def _node(host: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"redis://{host}")
    try:
        port = parts.port
    except ValueError:
        # Not shown: without its @HOST, redis://USER:PASSWORD has the password there.
        raise ValueError("what stands behind a host's colon is no port") from None
    return parts.hostname or "localhost", port or default_port


def _tls(options: Mapping[str, Any]) -> TlsOptions:
    return TlsOptions(
        options.get("ssl_ca_certs"),
        options.get("ssl_certfile"),
        options.get("ssl_keyfile"),
        "none" if options.get("ssl_cert_reqs") == "none" else "required",
        str(options.get("ssl_check_hostname", True)).lower() not in ("false", "0", "no"),
    )
