"""The leader's brain for the store: who must have a write, and what to do when the primary is gone.

Pure: rounds of looks and the time go in, effects come out. Each round is judged anew from what the nodes have
on record; what is remembered between rounds is only for how long something has been so.

Shrinking. A member that is gone must not stop the mesh for good (schedule F1), and may be taken out only
while no majority of Sentinels can have promoted another node (schedule F12 d). A Sentinel that heard the
primary at time t cannot take it for down before t + down-after; so a majority's word that the replica is down
counts until three quarters of down-after behind the oldest of these answers, by the primary's own clock,
and the store refuses the change later than that. One that is up and does not follow loses its
priority first, and is taken out once every Sentinel shows that.

Adopting. Sentinel promotes without asking who has everything. A promoted node is complete if its own record
names it as a member (M3), is as new as any under which somebody may have been acknowledged (R2), and its data
continue the history of the life on record: a node that was resynced to a primary that had gone back in
time belongs to another one. What is not complete is given up for a member that is; where there is none, it
is adopted with `loss_possible`, and an empty one never.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mesh.core.life_numbers import count_of, next_life
from mesh.core.records import Life, SetChange
from mesh.core.storeplan import (
    Adopt,
    Change,
    Confirm,
    Effect,
    EndTilt,
    FailOver,
    Follow,
    GiveUp,
    KeepingConfig,
    Known,
    Lead,
    SetPriority,
    Tell,
)
from mesh.core.storeprogress import Progress
from mesh.core.storeproofs import down, max_age_us, may_have_acknowledged, shown_at_zero
from mesh.core.storeview import NodeSeen, StoreSeen
from mesh.core.syncset import InSyncSet

_TILT_FACTOR = 5


class Storekeeping:
    """One supervisor's view of the store, over rounds.

    Args:
        config: see KeepingConfig.
        known: what this supervisor has led or heard of.
        draw: for the number of each life that is to be opened, see mesh.core.life_numbers.
        leads: whether the life and token known are its own.
        lowered: nodes whose priority this supervisor took, and what it was; kept up to date.
    """

    def __init__(
        self,
        config: KeepingConfig,
        known: Known,
        draw: Callable[[], int],
        *,
        leads: bool,
        lowered: dict[str, int] | None = None,
    ) -> None:
        self._config = config
        self._draw = draw
        self._leads = leads
        self.known = known
        self.wants_sentinels = False
        """Whether the next round needs their word."""
        self.is_alert = False
        """Whether the next round is due at once."""
        self._progress = Progress(config)
        self._attempted: list[InSyncSet] = []
        """Sets that were sent and not seen acknowledged; somebody may have been acknowledged under them."""
        self._lowered = {} if lowered is None else lowered
        self._opening: Adopt | None = None
        self._since: dict[str, float] = {}
        self._told: dict[str, dict[str, Any]] = {}

    def __repr__(self) -> str:
        state = "leads" if self._leads else "bids"
        return f"<Storekeeping, {state}, {self.known}>"

    def on_changed(self, sync_set: InSyncSet, *, acknowledged: bool) -> None:
        """A change was carried out; whether the new set is known to have it."""
        if acknowledged:
            self.known = self.known._replace(
                set_version=max(self.known.set_version, sync_set.version)
            )
            self._attempted = [
                other for other in self._attempted if other.version > sync_set.version
            ]
        elif sync_set not in self._attempted:
            self._attempted.append(sync_set)

    def on_refused(self, sync_set: InSyncSet) -> None:
        """A change was refused, so it is not on record: its repetition would have been recognised."""
        self._attempted = [other for other in self._attempted if other != sync_set]

    def step(self, seen: StoreSeen, now: float) -> list[Effect]:
        """What to do after this round of looks."""
        self.wants_sentinels = self.is_alert = False
        primary = self._chosen(seen)
        if primary is None:
            return self._without(seen, now)
        self._progress.note(primary, now)
        self._clear("lost")
        life = primary.life
        is_current = primary.is_open and primary.number >= self.known.life
        if life is not None and is_current and not self._is_own_opening(primary):
            self.known = self.known._replace(seen_open=(life.number, primary.name))
            return self._open(primary, life, seen, now)
        self._be_alert()
        return self._adopted(primary, seen, now)

    # ------------------------------------------------------------------------------- whom to deal with

    def _chosen(self, seen: StoreSeen) -> NodeSeen | None:
        primaries = seen.primaries
        if len(primaries) <= 1:
            return primaries[0] if primaries else None
        self._be_alert()
        open_ones = [node for node in primaries if node.is_open and node.number >= self.known.life]
        latest = max(open_ones, key=lambda node: node.number, default=None)
        own = next((node for node in open_ones if self._is_own(node)), None)
        if own is not None and latest is not None and not self._is_later_lead(latest):
            # Another opening of the same leader, on a node that was left behind: by its number alone it
            # may come after the one that was acknowledged.
            latest = own
        named = next((node for node in primaries if node.name == seen.named_primary), None)
        # A life that is open is left for nobody before a majority has said so, nor for one that lacks
        # something: they name the old primary for a while after another one was promoted.
        if named is None or (latest is not None and self._missing(named, seen)):
            return latest
        return named

    def _is_own(self, node: NodeSeen) -> bool:
        """Whether the life that is led is the one on record there."""
        life = node.life
        return self._leads and life is not None and (life.number, life.token) == self.known[:2]

    def _is_later_lead(self, node: NodeSeen) -> bool:
        return node.life is not None and node.life.token > self.known.token

    def _without(self, seen: StoreSeen, now: float) -> list[Effect]:
        self._be_alert()
        effects: list[Effect] = []
        lost_s = now - self._since.setdefault("lost", now)
        if lost_s >= self._config.quick_s:
            names = [node.name for node in seen.nodes]
            self._tell(effects, "store_lost", {"answering": sorted(names)})
            self._end_tilt(effects, seen, now)
        if lost_s >= self._config.patience_s and self._due("fail over", now):
            # None of those that are left may be promoted: they were on their way back when it died.
            complete = [node.name for node in seen.nodes if not self._missing(node, seen)]
            if complete and seen.watchers:
                effects.append(FailOver(complete[0]))
        return effects

    def _end_tilt(self, effects: list[Effect], seen: StoreSeen, now: float) -> None:
        """Sentinels stand still for 30 s after a pause, unless told otherwise. Nobody can be promoted, and no
        verdict changes, while a majority does.
        """
        tilted = [sentinel for sentinel in seen.sentinels if sentinel.is_tilted]
        alert = (sentinel for sentinel in seen.sentinels if not sentinel.is_tilted)
        if tilted and not seen.is_majority(alert) and self._due("tilt", now):
            longest_ms = max(sentinel.down_after_ms for sentinel in tilted)
            names = tuple(sorted(sentinel.name for sentinel in tilted))
            effects.append(EndTilt(names, _TILT_FACTOR * longest_ms))

    # ---------------------------------------------------------------------------- a life that is open

    def _open(self, primary: NodeSeen, life: Life, seen: StoreSeen, now: float) -> list[Effect]:
        if self._leads and (life.number, life.token) != self.known[:2]:
            return [GiveUp(life.number, life.token)]
        effects: list[Effect] = []
        change = None
        if self._config.durability == "replicated":
            change = self._shrunk(effects, primary, life.sync_set, seen, now)
        self.is_alert = self.is_alert or bool(self._attempted) or change is not None
        if not self._leads:
            self._be_alert()
            return [*effects, Lead(primary.name, life, change)]
        if self._config.durability == "replicated":
            change = change or self._grown(primary, life.sync_set, seen, now)
            change = change or self._marked(primary, life.sync_set, seen)
            self._priorities(effects, life.sync_set, seen, now)
        if change is not None:
            effects.append(Change(change))
        elif self._attempted:
            effects.append(Confirm())
        return effects

    def _shrunk(
        self,
        effects: list[Effect],
        primary: NodeSeen,
        current: InSyncSet,
        seen: StoreSeen,
        now: float,
    ) -> SetChange | None:
        suspects = [m for m in current.members if self._progress.is_suspicious(m, now)]
        if not suspects:
            self._clear("short")
            return None
        self.wants_sentinels = True
        self.is_alert = True  # nothing is acknowledged before it confirms, or is taken out
        self._end_tilt(effects, seen, now)
        gone, asked_at_us, most_us = down(primary, suspects, seen)
        if not gone:
            gone = self._not_following(effects, suspects, seen, now)
            asked_at_us, most_us = primary.clock_us, max_age_us(seen)
        if not gone:
            return None
        left = current.members - gone
        if not left:
            missing = {"members": sorted(current.members), "left": 0, "needed": 1}
            self._tell(effects, "store_short", missing)
            return None
        # A link that is still listed though its node is stopped would have to confirm for as long as the
        # primary's own time-out. Its priority goes with its membership, as the first thing that it will do.
        listed = gone & self._progress.listed
        for name in gone:
            self._lower(effects, name, seen, now)
        marked = current.no_candidates | listed
        smaller = InSyncSet(current.version + 1, left, marked, current.durability)
        return SetChange(smaller, asked_at_us, most_us)

    def _not_following(
        self, effects: list[Effect], suspects: Iterable[str], seen: StoreSeen, now: float
    ) -> frozenset[str]:
        """Members that are up for the Sentinels, do not follow, and will be promoted by none of them."""
        gone = set()
        for name in suspects:
            if not self._progress.is_stuck(name, now):
                continue
            if not seen.watchers:
                gone.add(name)
                continue
            node = seen.node(name)
            if node is not None and node.priority:
                self._lower(effects, name, seen, now)
            elif shown_at_zero(name, seen):
                gone.add(name)
        return frozenset(gone)

    def _grown(
        self, primary: NodeSeen, current: InSyncSet, seen: StoreSeen, now: float
    ) -> SetChange | None:
        """None while the set before is not known to be acknowledged: see schedule M3."""
        if self._attempted or self.known.set_version < current.version:
            return None
        for name in sorted(self._progress.listed - current.members):
            node = seen.node(name)
            if node is None or node.is_primary or not node.is_linked:
                continue
            if not self._may_be_promoted(node, seen) or not self._progress.is_steady(name, now):
                continue
            larger = InSyncSet(
                current.version + 1,
                current.members | {name},
                current.no_candidates - {name},
                current.durability,
            )
            return SetChange(larger)
        return None

    def _may_be_promoted(self, node: NodeSeen, seen: StoreSeen) -> bool:
        """Now, or as soon as it is a member."""
        ours = seen.is_managed or node.name in self._lowered
        return bool(node.priority) or (node.priority == 0 and ours)

    def _marked(self, primary: NodeSeen, current: InSyncSet, seen: StoreSeen) -> SetChange | None:
        """Nodes that their operator wants never to be promoted need not confirm."""
        spare = self._progress.listed - current.members - current.no_candidates
        nodes = [node for node in map(seen.node, sorted(spare)) if node and node.priority == 0]
        named = [node.name for node in nodes if not self._may_be_promoted(node, seen)]
        if not named:
            return None
        self.wants_sentinels = True
        idle = frozenset(name for name in named if not seen.watchers or shown_at_zero(name, seen))
        if not idle:
            return None
        marked = InSyncSet(
            current.version + 1,
            current.members,
            current.no_candidates | idle,
            current.durability,
        )
        return SetChange(marked, primary.clock_us, max_age_us(seen))

    def _priorities(
        self, effects: list[Effect], current: InSyncSet, seen: StoreSeen, now: float
    ) -> None:
        """Members may be promoted once that they are is acknowledged; who need not confirm, never."""
        settled = not self._attempted and self.known.set_version >= current.version
        for node in seen.nodes:
            name = node.name
            if name in current.members and node.priority == 0 and settled:
                is_fit = self._may_be_promoted(node, seen) and self._progress.is_steady(name, now)
                if is_fit and self._due(f"raise {name}", now):
                    priority = self._lowered.pop(name, self._config.priority)
                    effects.append(SetPriority(name, priority))
            elif name in current.no_candidates and node.priority:
                self._lower(effects, name, seen, now)

    def _lower(self, effects: list[Effect], name: str, seen: StoreSeen, now: float) -> None:
        if not self._due(f"lower {name}", now):
            return
        node = seen.node(name)
        had = node.priority if node else None
        self._lowered.setdefault(name, had or self._config.priority)
        effects.append(SetPriority(name, 0))

    # --------------------------------------------------------------------- a life that is to be opened

    def _is_own_opening(self, primary: NodeSeen) -> bool:
        """Written already, and not acknowledged so far."""
        opening, life = self._opening, primary.life
        return (
            opening is not None
            and life is not None
            and primary.run_id == opening.run_id
            and (life.number, life.token) == (opening.number, opening.token)
        )

    def _adopted(self, node: NodeSeen, seen: StoreSeen, now: float) -> list[Effect]:
        effects: list[Effect] = []
        opening = self._opening
        if opening is None or opening.run_id != node.run_id:
            opening = None
            loss = self._missing(node, seen)
            if loss and not self._is_left_no_choice(effects, node, loss, seen, now):
                return effects
        else:
            loss = opening.loss
        life = node.life
        if life is None:
            return effects
        members: frozenset[str] = frozenset()
        asked_at_us, max_age_us = None, 0
        if self._config.durability == "replicated":
            base = (opening.sync_set if opening else life.sync_set).members - {node.name}
            self._follow(effects, node, base, seen, now)
            gone, asked_at, max_age = down(node, sorted(base), seen)
            if gone:
                asked_at_us, max_age_us = asked_at, max_age
            members = base - gone or frozenset(name for name, _ in node.links)
            if not members:
                waits = {"members": sorted(base), "left": 0, "needed": 1}
                self._tell(effects, "store_short", waits)
                return effects
        if opening is None or opening.sync_set.members != members:
            version = max(self.known.set_version, life.sync_set.version)
            version = max([version, *(other.version for other in self._attempted)])
            marked = life.sync_set.no_candidates - members - {node.name}
            opening = self._opening = Adopt(
                node=node.name,
                run_id=node.run_id,
                previous=life.number,
                number=next_life(max(life.number, self.known.life, self.known.tried), self._draw()),
                token=max(life.token, self.known.token) + 1,
                sync_set=InSyncSet(version + 1, members, marked, self._config.durability),
                asked_at_us=asked_at_us,
                max_age_us=max_age_us,
                loss=loss,
            )
            self.known = self.known._replace(set_version=version, tried=opening.number)
            if loss:
                self._tell(effects, "loss_possible", {"store": node.name, "reason": loss})
        effects.append(opening)
        return effects

    def _is_left_no_choice(
        self, effects: list[Effect], node: NodeSeen, loss: str, seen: StoreSeen, now: float
    ) -> bool:
        """Whether an incomplete node has to be taken; else what is tried instead."""
        waited_s = now - self._since.setdefault(f"doubt {node.run_id}", now)
        better = [
            other
            for other in seen.nodes
            if other.name != node.name and not self._missing(other, seen)
        ]
        refused = is_empty = node.life is None
        if seen.watchers and (is_empty or waited_s < self._config.patience_s):
            settled = seen.named_primary == node.name
            if better and settled and self._due("fail over", now):
                effects.append(FailOver(better[0].name))
            refused = refused or bool(better) or not settled
        if refused:
            self._tell(effects, "store_refused", {"store": node.name, "reason": loss})
        return not refused

    def _follow(
        self,
        effects: list[Effect],
        primary: NodeSeen,
        members: Iterable[str],
        seen: StoreSeen,
        now: float,
    ) -> None:
        """Sentinel would take another second (schedule F13)."""
        attached = {name for name, _ in primary.links}
        for name in sorted(members):
            node = seen.node(name)
            if node is None or node.is_primary or name in attached or node.follows == primary.name:
                continue
            if self._due(f"follow {name} {primary.run_id}", now):
                effects.append(Follow(name, primary.name))

    def _missing(self, node: NodeSeen, seen: StoreSeen) -> str:
        """Why something that was acknowledged may not be there; "": nothing is missing."""
        life, known = node.life, self.known
        if life is None:
            return "it holds nothing of the mesh" if known.life else ""
        if life.number < known.life:
            was = count_of(known.life)
            return f"its record is of life {count_of(life.number)}, and life {was} was open"
        if life.sync_set.version < known.set_version and life.number == known.life:
            return (
                f"its record is of set {life.sync_set.version}, and set {known.set_version} has "
                f"acknowledged"
            )
        for sync_set in self._attempted:
            if sync_set.version > life.sync_set.version and may_have_acknowledged(
                sync_set, life.number, seen
            ):
                return (
                    f"its record is of set {life.sync_set.version}, and set {sync_set.version} may "
                    f"have acknowledged"
                )
        for other in seen.nodes:
            if other.life is None or other.recorded <= node.recorded:
                continue
            if may_have_acknowledged(other.life.sync_set, other.number, seen):
                return f"{other.name} has a later record, of life {count_of(other.number)}"
        if self._config.durability == "fsynced" or self._is_back_whole(node, life):
            return ""
        if self._config.durability == "process":
            return "the process that had everything in its memory is gone"
        return self._not_shown(node, life, seen)

    def _is_back_whole(self, node: NodeSeen, life: Life) -> bool:
        """The primary of that life was restarted, and synced each write before anybody was answered. (A
        replica that does so keeps all that it had, and that may have been less.)
        """
        return node.keeps_all and (life.number, node.name) == self.known.seen_open

    def _not_shown(self, node: NodeSeen, life: Life, seen: StoreSeen) -> str:
        if node.name not in life.sync_set.members:
            return f"it was no member of set {life.sync_set.version}"
        if life.history and life.history not in node.histories:
            return f"its data do not continue the history of life {count_of(life.number)}"
        if not self.known.is_sure:
            for name in sorted(life.sync_set.members - {node.name}):
                if seen.node(name) is None:
                    return f"member {name} does not say what it has"
        return ""

    # ------------------------------------------------------------------------------------ what was told

    def _due(self, what: str, now: float) -> bool:
        """Whether it is time to do it, again."""
        key = f"did {what}"
        if now - self._since.get(key, -1e9) < self._config.again_s:
            return False
        self._since[key] = now
        return True

    def _be_alert(self) -> None:
        self.wants_sentinels = self.is_alert = True

    def _clear(self, kind: str) -> None:
        self._since.pop(kind, None)
        self._told.pop(f"store_{kind}", None)

    def _tell(self, effects: list[Effect], kind: str, fields: dict[str, Any]) -> None:
        """Once, until something about it is another."""
        if self._told.get(kind) != fields:
            self._told[kind] = fields
            effects.append(Tell(kind, fields))
