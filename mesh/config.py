"""How a mesh is put together: one frozen value, checked as a whole, passed to every process of it.

Each setting is described once, where it is declared: its name, default, bounds and what it means.
The flags, the `MESH_*` variables, the keys of mesh.toml, `--help` and `mesh config show` are made
from that (mesh.config_sources), so they cannot come to say different things. Nothing here reads the
environment; whoever builds a MeshConfig in Python gets what he writes.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mesh.settings import ConfigError, Ref, check, secrets_in, setting, settings_of
from mesh.timing_settings import TimingSettings
from mesh.timings import refuse_unworkable

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_APP = re.compile(r"[\w.]+(:\w+(,\w+)*)?")
_ADDRESS = re.compile(r"[^\s/]+:\d{1,5}")
_MIB = 1024 * 1024
MAX_PARTITIONS = 16_384
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class MeshConfig(TimingSettings):
    """A mesh as its operator asks for it; `SETTINGS` says what each field means.

    Raises:
        ConfigError: a value is out of its bounds, or two contradict each other; it prints both.
    """

    name: str = setting("default", "tells one mesh from another; part of every key in the store")
    handlers: int = setting(
        4, "number of handler processes", kind="number", metavar="N", least=1, most=1000
    )
    partitions: int | None = setting(
        None,
        "parts of the key space, fixed when a mesh is created; unset: as it was created, 256 for a new "
        "one",
        kind="number",
        metavar="P",
        least=1,
        most=MAX_PARTITIONS,
    )
    supervisors: int = setting(
        2,
        "number of supervisor processes: one leads, the others stand by; with 1 nobody takes over from "
        "a handler that dies while the supervisor is being replaced",
        kind="number",
        metavar="N",
        least=1,
        most=5,
    )
    app: str = setting(
        "",
        "your entities; all of a module's, or those named; several with semicolons; empty: only KV, "
        "which is always there",
        kind="app",
        metavar="MODULE[:CLASS,...]",
    )
    host: str = setting(
        "127.0.0.1", "address to listen on; any that is not loopback needs a token", metavar="HOST"
    )
    port: int = setting(
        7400,
        "of the first supervisor; 0 takes a free one, and so do all others",
        kind="number",
        metavar="PORT",
        least=0,
        most=65_535,
    )
    token: str = setting(
        "", "clients have to know it; empty lets in whoever reaches the port", secret=True
    )
    ray: str = setting(
        "local",
        "local starts a Ray of its own, auto or HOST:PORT joins one that runs",
        metavar="RAY",
    )
    dashboard: bool = setting(True, "start Ray's dashboard too (local Ray only)", kind="yes or no")
    data_dir: str | None = setting(
        None,
        "folder of the embedded store and of the log; unset: raymesh/NAME in the user's data folder",
        kind="path",
        metavar="DIR",
    )
    health_port: int | None = setting(
        None,
        "where load balancers ask for /healthz and /readyz: supervisor s-K on it + K, handler h-K on it + "
        "10 + K; 0 takes free ones, see `mesh status --json`; unset: nowhere",
        kind="number",
        metavar="PORT",
        least=0,
        most=64_000,
    )

    store: str = setting(
        "embedded",
        "embedded, redis://HOST:PORT[,HOST:PORT...][/DB], or redis+sentinel://HOST:PORT[,...]/MASTER; "
        "rediss for TLS",
        group="store",
        metavar="STORE",
        shown=False,  # an address may hold a password
    )
    store_password: str = setting(
        "", "of an external store; the embedded one draws its own", group="store", secret=True
    )
    durability: str = setting(
        "auto",
        "what an acknowledged write has survived; auto: the best that the store can do, never process",
        group="store",
        choices=("auto", "replicated", "fsynced", "process"),
    )
    store_open_s: float = setting(
        15.0,
        "seconds that the store has for getting ready, its replicas included, before a start fails",
        kind="seconds",
        group="store",
        least=0.1,
        most=3600,
    )
    store_connect_s: float = setting(
        1.0,
        "seconds for connecting to one node and logging in; longer delays the search for a primary",
        kind="seconds",
        group="store",
        least=0.01,
        most=60,
    )
    store_wait_s: float = setting(
        0.1,
        "seconds that one write waits for the replicas; then it is sent again, never given up",
        kind="seconds",
        group="store",
        least=0.001,
        most=60,
    )
    store_reply_s: float = setting(
        2.0,
        "seconds without a reply after which a connection to the store counts as lost",
        kind="seconds",
        group="store",
        least=0.01,
        most=120,
    )

    timeout: float = setting(
        10.0,
        "seconds that `mesh call` waits for a reply",
        kind="seconds",
        group="limits",
        least=0.001,
        most=86_400,
    )
    idempotency_window_s: float = setting(
        86_400.0,
        "seconds that a call may be repeated with its key; a request older than half of it is never "
        "executed",
        kind="seconds",
        group="limits",
        least=60,
        most=30 * 86_400,
    )
    idempotency_bytes: int = setting(
        4 * _MIB,
        "bytes that one partition keeps of calls with a caller's key; with further keys they are refused as "
        "Overloaded until some of it is older than idempotency_window_s",
        kind="number",
        group="limits",
        least=1024,
    )
    max_pending: int = setting(
        16_384,
        "calls that one handler holds at the same time; the next ones are refused as Overloaded",
        kind="number",
        group="limits",
        least=1,
        most=1_000_000,
    )
    cache_bytes: int = setting(
        512 * _MIB,
        "bytes of acknowledged state that one handler keeps in memory; what goes beyond is read from "
        "the store again",
        kind="number",
        group="limits",
        least=_MIB,
    )
    history_bytes: int = setting(
        256 * _MIB,
        "bytes that one handler keeps of what is acknowledged while replicas are missing in the in-sync "
        "set, to send it again if those that have it are lost; full, nothing is acknowledged until "
        "the replicas are back; 0 keeps nothing, and what was only on lost nodes is lost",
        kind="number",
        group="limits",
        least=0,
    )
    method_limit_s: float = setting(
        30.0,
        "seconds that a run of an async or blocking method may take which names no limit_s of its own; "
        "then it is stopped and undone",
        kind="seconds",
        group="limits",
        least=0.001,
        most=86_400,
    )
    threads: int = setting(
        32,
        "threads that the blocking methods of one handler may take; further ones wait for a free one",
        kind="number",
        group="limits",
        least=1,
        most=4096,
    )
    max_state_bytes: int = setting(
        _MIB,
        "bytes that the state of one key may have; the store writes a changed state as a whole",
        kind="number",
        group="limits",
        least=1024,
        most=3 * _MIB,
    )
    max_reply_bytes: int = setting(
        _MIB,
        "bytes that the reply of one call may have",
        kind="number",
        group="limits",
        least=1024,
        most=3 * _MIB,
    )
    health_s: float = setting(
        1.0,
        "seconds between two checks of the entities' health, and that each check may take",
        kind="seconds",
        group="limits",
        least=0.05,
        most=3600,
    )
    write_buffer_bytes: int = setting(
        64 * _MIB,
        "bytes that may wait for a peer that does not read; past it that connection is cut",
        kind="number",
        group="limits",
        least=4 * _MIB,
    )
    hello_s: float = setting(
        5.0,
        "seconds that a connection may take to say who it is; then it is closed",
        kind="seconds",
        group="limits",
        least=0.01,
        most=600,
    )
    unauthenticated: int = setting(
        256,
        "connections that have not yet said who they are, at the same time; one more ends the oldest",
        kind="number",
        group="limits",
        least=1,
        most=65_535,
    )
    restart_after_s: float = setting(
        0.25,
        "seconds from a takeover to the start of a replacement; 0 starts it at once, and it takes its "
        "core from the survivors",
        kind="seconds",
        group="limits",
        least=0,
        most=3600,
    )

    log_level: str = setting(
        "info",
        "least weight of what is logged; debug also says what comes right by itself",
        group="log",
        choices=("debug", "info", "warning", "error"),
        variable="MESH_LOG",
    )
    log_file: str | None = setting(
        None, "unset: mesh.log in the data folder", kind="path", group="log", metavar="FILE"
    )

    def __post_init__(self) -> None:
        for known in SETTINGS.values():
            check(known, getattr(self, known.name))
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"mesh name {self.name!r}: use 1 to 64 letters, digits, dots, dashes, underscores (",
                Ref("name"),
                ")",
            )
        if self.partitions is not None and self.partitions < self.handlers:
            raise ConfigError(
                f"{self.handlers} handlers cannot share {self.partitions} partitions: lower ",
                Ref("handlers"),
                " or raise ",
                Ref("partitions"),
            )
        if self.app and not all(_APP.fullmatch(part) for part in self.app.split(";")):
            raise ConfigError(Ref("app"), f' {self.app!r} is not "module" or "module:Class,Class"')
        if self.ray.startswith("ray://"):
            raise ConfigError(
                Ref("ray"),
                f" {self.ray} is Ray Client's address: name that of the cluster itself, HOST:6379",
            )
        if self.ray not in ("local", "auto") and not _ADDRESS.fullmatch(self.ray):
            raise ConfigError(Ref("ray"), f" {self.ray!r}: write local, auto or HOST:PORT")
        if self.host not in LOOPBACK and not self.token:
            raise ConfigError(
                Ref("host"),
                f" {self.host} can be reached from other machines: set a token (MESH_TOKEN, or a "
                f"file named by --token-file), or stay on 127.0.0.1",
            )
        if self.store_reply_s <= self.store_wait_s:
            raise ConfigError(
                Ref("store_reply_s"),
                f" ({self.store_reply_s:g} s) must be above ",
                Ref("store_wait_s"),
                f" ({self.store_wait_s:g} s): a connection that waits for replicas is not lost",
            )
        refuse_unworkable({**self.times, "method_limit_s": self.method_limit_s})
        if self.idempotency_window_s < 2 * self.timeout:
            raise ConfigError(
                Ref("idempotency_window_s"),
                f" ({self.idempotency_window_s:g} s) must be at least twice ",
                Ref("timeout"),
                f" ({self.timeout:g} s): a call older than half the window is not executed",
            )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The texts that must never be shown or logged."""
        return tuple(filter(None, (self.token, self.store_password, *secrets_in(self.store))))

    @property
    def handler_ids(self) -> tuple[str, ...]:
        """h-0, h-1, …"""
        return tuple(f"h-{i}" for i in range(self.handlers))

    @property
    def supervisor_ids(self) -> tuple[str, ...]:
        """s-0, s-1, …"""
        return tuple(f"s-{i}" for i in range(self.supervisors))

    @property
    def data_folder(self) -> Path:
        """Where the mesh keeps its data, from the root on."""
        folder = Path(self.data_dir) if self.data_dir else default_data_dir(self.name)
        return Path(os.path.abspath(folder.expanduser()))

    @property
    def log_path(self) -> Path:
        """Where the mesh's processes on this machine log, from the root on."""
        if self.log_file:
            return Path(os.path.abspath(Path(self.log_file).expanduser()))
        return self.data_folder / "mesh.log"


SETTINGS = settings_of(MeshConfig)
"""Every setting by its name."""


def default_data_dir(mesh: str) -> Path:
    """Where a mesh keeps its data unless told otherwise: in the user's data folder (XDG)."""
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "raymesh" / mesh
