"""A Sentinel's half that watches: its connections, PING, INFO, and what Sentinels tell each other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from functools import partial

from mesh.store.resp import pack
from mesh.testing.sim.store.sentinel_link import Outgoing
from mesh.testing.sim.store.sentinel_view import (
    ASK_S,
    HELLO_S,
    INFO_IN_FAILOVER_S,
    INFO_S,
    PING_S,
    Address,
    Failover,
    Instance,
    SentinelConfig,
)

CHANNEL = b"__sentinel__:hello"
_TICK_S = 0.1
_TILT_TRIGGER_S = 2.0


class Watched:
    """An instance with the connections to it."""

    __slots__ = ("channel", "commands", "hello_at", "info_asked_at", "ping_sent_at", "view")

    def __init__(self, view: Instance, commands: Outgoing, channel: Outgoing | None) -> None:
        self.view = view
        self.commands = commands
        self.channel = channel
        self.ping_sent_at = self.info_asked_at = self.hello_at = -1e9

    def end(self) -> None:
        """Watch no more."""
        self.commands.end()
        if self.channel is not None:
            self.channel.end()


class SentinelWatch:
    """What a Sentinel sees. Whoever derives from it judges."""

    def __init__(self, config: SentinelConfig, dice: random.Random) -> None:
        self.config = config
        self.host, self.port = "", 0
        self.failover: Failover | None = None
        self.tilt_since: float | None = None
        self.ended = False
        self._dice = dice
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._ticked_at = 0.0

    def _judge(self, now: float) -> None:
        """Ten times a second, unless it was paused itself a while ago."""
        raise NotImplementedError

    def _switch(self, primary: Address) -> None:
        """Another node is the primary."""
        raise NotImplementedError

    @property
    def now(self) -> float:
        return self._loop.time()

    @property
    def watched(self) -> Iterable[Watched]:
        return (self.primary, *self.replicas.values(), *self.sentinels.values())

    def views(self, kind: str) -> list[Instance]:
        """What it knows of the "primary", the "replicas", or the "sentinels"."""
        if kind == "primary":
            return [self.primary.view]
        watched = self.replicas if kind == "replicas" else self.sentinels
        return [one.view for one in watched.values()]

    def _begin_watching(self) -> None:
        self._watch_store()
        self.sentinels = {
            address: self._watch(address, is_node=False) for address in self.config.others
        }
        for address, watched in self.sentinels.items():
            watched.view.id = self.config.others[address]
        self._ticked_at = self.now
        self._tick()

    def _watch_store(self) -> None:
        """The primary and replicas of the configuration, all of them looked at afresh."""
        config = self.config
        self.primary = self._watch(config.primary, is_node=True)
        self.replicas = {
            address: self._watch(address, is_node=True)
            for address in config.replicas
            if address != config.primary
        }

    def _watch(self, address: Address, *, is_node: bool) -> Watched:
        now, password = self.now, self.config.password
        view = Instance(address, now, now, now)
        commands = Outgoing(
            self._loop, address, password=password, on_connected=lambda: self._ping(watched)
        )
        channel = None
        if is_node:
            channel = Outgoing(
                self._loop,
                address,
                password=password,
                greeting=pack("SUBSCRIBE", CHANNEL),
                on_message=self._heard,
            )
        watched = Watched(view, commands, channel)
        return watched

    def _tick(self) -> None:
        now = self.now
        if not 0 <= now - self._ticked_at <= _TILT_TRIGGER_S:
            self.tilt_since = now
        self._ticked_at = now
        if self.tilt_since is not None and now - self.tilt_since > self.config.tilt_s:
            self.tilt_since = None
        for watched in list(self.watched):
            self._keep_in_touch(watched, now)
        if self.tilt_since is None:
            self._judge(now)
        self._timer = self._loop.call_later(_TICK_S * (0.9 + 0.2 * self._dice.random()), self._tick)

    def _keep_in_touch(self, watched: Watched, now: float) -> None:
        view, commands = watched.view, watched.commands
        view.connected = commands.connected
        if commands.connect(PING_S) and view.pinged_at is None:
            view.pinged_at = now  # the silence counts from here, whether it connects or not
        if watched.channel is not None:
            watched.channel.connect(PING_S)
        if not commands.connected:
            return
        is_node = watched.channel is not None
        if is_node and now - watched.info_asked_at >= self._info_period_s(watched):
            watched.info_asked_at = now
            commands.send(pack("INFO"), partial(self._informed, watched))
        period_s = min(self.config.down_after_s, PING_S)
        if now - view.answered_at > period_s and now - watched.ping_sent_at > period_s / 2:
            self._ping(watched)
        if is_node and now - watched.hello_at >= HELLO_S:
            watched.hello_at = now
            commands.send(pack("PUBLISH", CHANNEL, self._hello()))
        most_s = self.config.down_after_s / 2
        owed_s = now - view.pinged_at if view.pinged_at is not None else 0.0
        long_known = now - view.known_since > 15 * PING_S
        if long_known and owed_s > most_s and now - view.answered_at > most_s:
            commands.drop()  # a half-open connection would answer nothing for ever

    def _ping(self, watched: Watched) -> None:
        view = watched.view
        watched.ping_sent_at = self.now
        if view.pinged_at is None:
            view.pinged_at = self.now
        watched.commands.send(pack("PING"), partial(self._answered, view))

    def _info_period_s(self, watched: Watched) -> float:
        view = watched.view
        if view.info_at is None and watched.info_asked_at < self.now - INFO_IN_FAILOVER_S:
            return 0.0
        urgent = self.failover is not None or self.is_objectively_down(self.now)
        if watched is not self.primary and (urgent or not view.link_up):
            return INFO_IN_FAILOVER_S
        return INFO_S

    def _answered(self, view: Instance, reply: object) -> None:
        view.answered_at = self.now
        if reply == b"PONG" or str(reply).startswith(("LOADING", "MASTERDOWN")):
            view.available_at = self.now
            view.pinged_at = None

    def _informed(self, watched: Watched, reply: object) -> None:
        view = watched.view
        if not isinstance(reply, bytes):
            return
        view.read_info(reply.decode(errors="replace"), self.now)
        if watched is self.primary:
            for line in reply.decode(errors="replace").splitlines():
                if line.startswith("slave") and "ip=" in line:
                    self._met_replica(line)
        failover = self.failover
        promoting = failover is not None and failover.state == "wait_promotion"
        if failover and promoting and failover.promoted is view and view.role == "master":
            self.config.config_epoch = failover.epoch
            failover.enter("reconf_slaves", self.now)
            for other in self.watched:
                other.hello_at = -1e9  # tell everybody at once

    def _met_replica(self, line: str) -> None:
        said = dict(part.split("=", 1) for part in line.split(":", 1)[1].split(",") if "=" in part)
        address = (said["ip"], int(said["port"]))
        if address not in self.replicas and address != self.config.primary:
            self.replicas[address] = self._watch(address, is_node=True)
            self.config.replicas.append(address)

    def is_objectively_down(self, now: float) -> bool:
        """Whether a quorum holds the primary for down."""
        if not self.primary.view.is_down:
            return False
        count = 1
        for watched in self.sentinels.values():
            said_at = watched.view.says_down_at
            count += said_at is not None and now - said_at <= 5 * ASK_S
        return count >= self.config.quorum

    # ------------------------------------------------------------------------------------ the channel

    def _hello(self) -> bytes:
        config = self.config
        primary, failover = config.primary, self.failover
        if failover is not None and failover.state == "reconf_slaves" and failover.promoted:
            primary = failover.promoted.address
        fields = (
            *(self.host, self.port, config.id, config.current_epoch),
            *(config.name, *primary, config.config_epoch),
        )
        return ",".join(map(str, fields)).encode()

    def _heard(self, message: object) -> None:
        match message:
            case [b"message", _, bytes(text)]:
                parts = text.decode(errors="replace").split(",")
            case _:
                return
        host, port, id, epoch, name, primary_host, primary_port, config_epoch = parts
        config = self.config
        if id == config.id or name != config.name:
            return
        address = (host, int(port))
        if address not in self.sentinels:
            self._met_sentinel(address, id)
        config.current_epoch = max(config.current_epoch, int(epoch))
        if int(config_epoch) > config.config_epoch:
            config.config_epoch = int(config_epoch)
            primary = (primary_host, int(primary_port))
            if primary != config.primary:
                self._switch(primary)

    def _met_sentinel(self, address: Address, id: str) -> None:
        for known, watched in list(self.sentinels.items()):
            if watched.view.id == id:  # it has moved
                watched.end()
                del self.sentinels[known], self.config.others[known]
        watched = self.sentinels[address] = self._watch(address, is_node=False)
        watched.view.id = self.config.others[address] = id
