"""How far each replica of the store is behind, over rounds of looks."""

from __future__ import annotations

from collections import deque

from mesh.core.storeplan import KeepingConfig
from mesh.core.storeview import NodeSeen


class Progress:
    """Of the replicas of the present primary."""

    def __init__(self, config: KeepingConfig) -> None:
        self._config = config
        self._run_id = ""
        self._offsets: deque[tuple[float, int]] = deque()
        self._confirmed: dict[str, int] = {}
        self._listed_at: dict[str, float] = {}
        self._follows_since: dict[str, float] = {}
        self._began = 0.0

    @property
    def listed(self) -> frozenset[str]:
        """Names of the links."""
        return frozenset(self._confirmed)

    def note(self, primary: NodeSeen, now: float) -> None:
        """Another round; a new primary begins anew."""
        if primary.run_id != self._run_id:
            self._run_id, self._began = primary.run_id, now
            self._offsets.clear()
            self._listed_at.clear()
            self._follows_since.clear()
        # A name that is listed twice counts by its lowest offset: one link is a leftover.
        self._confirmed = {}
        for name, confirmed in primary.links:
            self._confirmed[name] = min(confirmed, self._confirmed.get(name, confirmed))
        self._offsets.append((now, primary.offset))
        while len(self._offsets) > 1 and self._offsets[1][0] <= now - self._config.lag_s:
            self._offsets.popleft()
        for name in {*self._confirmed, *self._follows_since}:
            if name in self._confirmed:
                self._listed_at[name] = now
            if self._is_behind(name, now - self._config.lag_s):
                self._follows_since.pop(name, None)
            else:
                self._follows_since.setdefault(name, now)

    def is_suspicious(self, name: str, now: float) -> bool:
        """Not attached, or behind what the primary had a moment ago; a replica that has nothing to
        confirm may be, for up to a second.
        """
        return self._is_behind(name, now - self._config.quick_s)

    def is_stuck(self, name: str, now: float) -> bool:
        """Behind, or away, for so long that it cannot be for want of anything to confirm."""
        if name in self._confirmed:
            return self._is_behind(name, now - self._config.lag_s)
        return now - max(self._began, self._listed_at.get(name, 0.0)) >= self._config.lag_s

    def is_steady(self, name: str, now: float) -> bool:
        """Following for a while. Whether it has everything, its confirmation as a member will show."""
        since = self._follows_since.get(name)
        return since is not None and now - since >= self._config.steady_s

    def _is_behind(self, name: str, then: float) -> bool:
        confirmed = self._confirmed.get(name)
        if confirmed is None:
            return True
        reached = [offset for at, offset in self._offsets if at <= then]
        return bool(reached) and confirmed < reached[-1]
