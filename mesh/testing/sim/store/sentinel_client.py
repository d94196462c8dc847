"""What a Sentinel answers: the SENTINEL commands that a mesh, other Sentinels and operators send."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, cast

import hiredis

from mesh.testing.sim.store.replies import OK, Fault, Reply, Status, encode, integer, shown
from mesh.testing.sim.store.sentinel_view import Failover, Instance, SentinelConfig


class Watcher(Protocol):
    """A Sentinel, as its clients need it."""

    config: SentinelConfig
    failover: Failover | None
    tilt_since: float | None
    ended: bool

    @property
    def now(self) -> float: ...

    def views(self, kind: str) -> list[Instance]:
        """What it knows of the "primary", the "replicas", or the "sentinels"."""
        ...

    def is_objectively_down(self, now: float) -> bool:
        """Whether a quorum holds the primary for down."""
        ...

    def vote(self, epoch: int, candidate: str) -> tuple[str, int]:
        """Whom it votes for in an epoch."""
        ...

    def force_failover(self) -> bool:
        """Begin one; False: no replica is fit, or one is under way."""
        ...

    def met(self, client: SentinelClient) -> None:
        """A connection is there."""
        ...

    def forget(self, client: SentinelClient) -> None:
        """A connection is gone."""
        ...


class SentinelClient(asyncio.Protocol):
    """One connection to a Sentinel."""

    def __init__(self, sentinel: Watcher) -> None:
        self._sentinel = sentinel
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._logged_in = not sentinel.config.password

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._sentinel.met(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sentinel.forget(self)

    def kill(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        out = []
        while True:
            try:
                args: Any = self._reader.gets()
            except hiredis.ProtocolError:
                self.kill()
                return
            if args is False:
                break
            if isinstance(args, list) and args:
                out.append(encode(self._answer(args)))
        if out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    def _answer(self, args: list[bytes]) -> Reply:
        try:
            return self._carried_out(args)
        except Fault as fault:
            return fault

    def _carried_out(self, args: list[bytes]) -> Reply:
        name = args[0].upper()
        if name == b"AUTH":
            return self._log_in(args[1:])
        if not self._logged_in:
            raise Fault("NOAUTH Authentication required.")
        match [name, *args[1:]]:
            case [b"PING"]:
                return Status(b"PONG")
            case [b"CLIENT", *_]:
                return OK
            case [b"ROLE"]:
                return [b"sentinel", [self._sentinel.config.name.encode()]]
            case [b"INFO", *_]:
                tilt = int(self._sentinel.tilt_since is not None)
                return b"redis_version:7.2.4\r\nredis_mode:sentinel\r\nsentinel_tilt:%d\r\n" % tilt
            case [b"SENTINEL", word, *rest]:
                return self._sentinels(word.upper(), rest)
        said = "".join(f"'{shown(arg)}' " for arg in args[1:])
        raise Fault(f"ERR unknown command '{shown(args[0])}', with args beginning with: {said}")

    def _log_in(self, args: list[bytes]) -> Reply:
        password = self._sentinel.config.password.encode()
        if not password:
            raise Fault(
                "ERR AUTH <password> called without any password configured for the default user. "
                "Are you sure your configuration is correct?"
            )
        if args[-1] != password or (len(args) == 2 and args[0] != b"default"):
            raise Fault("WRONGPASS invalid username-password pair or user is disabled.")
        self._logged_in = True
        return OK

    def _sentinels(self, word: bytes, args: list[bytes]) -> Reply:
        config = self._sentinel.config
        match [word, *args]:
            case [b"MYID"]:
                return config.id.encode()
            case [b"MASTERS"]:
                return [self._primary()]
            case [b"DEBUG", b"tilt-period", period]:
                config.tilt_s = integer(period) / 1000
                return OK
            case [b"GET-MASTER-ADDR-BY-NAME", name]:
                if name.decode(errors="replace") != config.name:
                    return None
                host, port = self._current()
                return [host.encode(), b"%d" % port]
            case [b"IS-MASTER-DOWN-BY-ADDR", host, port, epoch, candidate]:
                return self._is_down((host.decode(), integer(port)), integer(epoch), candidate)
        if not args or args[0].decode(errors="replace") != config.name:
            raise Fault("ERR No such master with that name")
        return self._of_the_primary(word)

    def _of_the_primary(self, word: bytes) -> Reply:
        sentinel = self._sentinel
        match word:
            case b"MASTER":
                return self._primary()
            case b"REPLICAS" | b"SLAVES":
                return [self._described(view, "slave") for view in sentinel.views("replicas")]
            case b"SENTINELS":
                return [self._described(view, "sentinel") for view in sentinel.views("sentinels")]
            case b"CKQUORUM":
                return self._quorum()
            case b"FAILOVER":
                if sentinel.failover is not None:
                    raise Fault("INPROG Failover already in progress")
                if not sentinel.force_failover():
                    raise Fault("NOGOODSLAVE No suitable replica to promote")
                return OK
        raise Fault(f"ERR unknown subcommand '{shown(word)}'. Try SENTINEL HELP.")

    def _current(self) -> tuple[str, int]:
        failover = self._sentinel.failover
        if failover is not None and failover.state == "reconf_slaves" and failover.promoted:
            return failover.promoted.address
        return self._sentinel.config.primary

    def _is_down(self, address: tuple[str, int], epoch: int, candidate: bytes) -> Reply:
        sentinel = self._sentinel
        (primary,) = sentinel.views("primary")
        known = address == sentinel.config.primary
        down = known and sentinel.tilt_since is None and primary.is_down
        leader, leader_epoch = "*", 0
        if known and candidate != b"*":
            leader, leader_epoch = sentinel.vote(epoch, candidate.decode())
        return [int(down), leader.encode(), leader_epoch]

    def _quorum(self) -> Reply:
        sentinel = self._sentinel
        others = sentinel.views("sentinels")
        usable = 1 + sum(not view.is_down for view in others)
        few = usable < sentinel.config.quorum
        no_majority = usable < (1 + len(others)) // 2 + 1
        if not few and not no_majority:
            return Status(
                b"OK %d usable Sentinels. Quorum and failover authorization can be reached" % usable
            )
        text = f"NOQUORUM {usable} usable Sentinels. "
        if few:
            text += "Not enough available Sentinels to reach the specified quorum for this master. "
        if no_majority:
            text += "Not enough available Sentinels to reach the majority and authorize a failover"
        raise Fault(text.strip())

    def _primary(self) -> Reply:
        sentinel = self._sentinel
        (view,) = sentinel.views("primary")
        config = sentinel.config
        extra = {
            "config-epoch": config.config_epoch,
            "num-slaves": len(sentinel.views("replicas")),
            "num-other-sentinels": len(sentinel.views("sentinels")),
            "quorum": config.quorum,
            "failover-timeout": round(config.failover_timeout_s * 1000),
            "parallel-syncs": config.parallel_syncs,
        }
        flags = "master" + (",o_down" if sentinel.is_objectively_down(sentinel.now) else "")
        flags += ",failover_in_progress" if sentinel.failover is not None else ""
        return self._described(view, flags, **extra)

    def _described(self, view: Instance, flags: str, **extra: object) -> Reply:
        sentinel = self._sentinel
        now, config = sentinel.now, sentinel.config
        if view.is_down:
            flags += ",s_down"
        if not view.connected:
            flags += ",disconnected"
        fields: dict[str, object] = {
            "name": config.name if flags.startswith("master") else "{}:{}".format(*view.address),
            "ip": view.address[0],
            "port": view.address[1],
            "runid": view.id or view.run_id,
            "flags": flags,
            "last-ping-sent": _ms(now, view.pinged_at),
            "last-ok-ping-reply": _ms(now, view.available_at),
            "last-ping-reply": _ms(now, view.answered_at),
            "down-after-milliseconds": round(config.down_after_s * 1000),
        }
        if view.down_since is not None:
            fields["s-down-time"] = _ms(now, view.down_since)
        if view.info_at is not None:
            fields |= {
                "info-refresh": _ms(now, view.info_at),
                "role-reported": view.role,
                "role-reported-time": _ms(now, view.role_since),
            }
        if view.primary is not None:
            fields |= {
                "master-link-down-time": round(view.link_down_s * 1000),
                "master-link-status": "ok" if view.link_up else "err",
                "master-host": view.primary[0],
                "master-port": view.primary[1],
                "slave-priority": view.priority,
                "slave-repl-offset": view.offset,
            }
        fields |= extra
        return [str(text).encode() for pair in fields.items() for text in pair]


def _ms(now: float, then: float | None) -> int:
    return 0 if then is None else round((now - then) * 1000)
