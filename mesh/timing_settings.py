"""The settings of a mesh that are about time: who is alive, who is ill, how long a lease lasts.

Each that is left unset is as its preset has it (mesh.timings), so that one word fits a mesh to its network.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.settings import setting
from mesh.timings import LEAST_CLIENTS, LEAST_MISSED, PRESETS


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingSettings:
    """Those of a MeshConfig, which checks them together."""

    timing: str = setting(
        "local",
        "preset of the times by which it is told who is alive: local for one machine or rack, lan for the "
        "zones of a region, wan for distant regions; each time below that is unset is the preset's",
        group="timing",
        choices=tuple(PRESETS),
    )
    lease_s: float | None = setting(
        None,
        "seconds that a handler may answer queries without having renewed its lease; a handler that nobody "
        "can reach or look at is taken over once it is out",
        kind="seconds",
        group="timing",
        least=0.05,
        most=600,
    )
    lease_margin_s: float | None = setting(
        None,
        "seconds by which a handler stops answering before its lease is out",
        kind="seconds",
        group="timing",
        least=0,
        most=60,
    )
    renew_s: float | None = setting(
        None,
        "seconds between two renewals of a lease; longer saves writes, and a late one ends the lease",
        kind="seconds",
        group="timing",
        least=0.01,
        most=300,
    )
    lease_read_s: float | None = setting(
        None,
        "seconds between two looks of the leader at all renewals",
        kind="seconds",
        group="timing",
        least=0.01,
        most=300,
    )
    beat_s: float | None = setting(
        None,
        "seconds between two beats of a handler; shorter detects earlier and costs CPU",
        kind="seconds",
        group="timing",
        least=0.01,
        most=60,
    )
    missed_beats: int | None = setting(
        None,
        "beats without a turn of its loop after which a handler is looked at",
        kind="number",
        group="timing",
        least=LEAST_MISSED,
        most=100,
    )
    probe_s: float | None = setting(
        None,
        "seconds that a handler's loop has for answering a probe before even a stopped one is killed",
        kind="seconds",
        group="timing",
        least=0.01,
        most=60,
    )
    kill_s: float | None = setting(
        None,
        "seconds after which a warden does not carry out a kill any more that it was ordered",
        kind="seconds",
        group="timing",
        least=0.05,
        most=60,
    )
    proof_s: float | None = setting(
        None,
        "seconds that a kill has for being proved; then the handler is taken over like one that cannot be "
        "reached",
        kind="seconds",
        group="timing",
        least=0.01,
        most=60,
    )
    slow_method_s: float | None = setting(
        None,
        "seconds that a plain method may keep its handler's loop before it is reported by name; it is ended "
        "at method_limit_s",
        kind="seconds",
        group="timing",
        least=0.05,
        most=3600,
    )
    gray_s: float | None = setting(
        None,
        "seconds for which a handler is far from the others, and clients see it, before its load is taken "
        "off it, step by step",
        kind="seconds",
        group="timing",
        least=0.1,
        most=600,
    )
    gray_floor_s: float | None = setting(
        None,
        "seconds of latency up to which no difference between handlers matters",
        kind="seconds",
        group="timing",
        least=0.0001,
        most=60,
    )
    gray_clients: int | None = setting(
        None,
        "machines of clients that have to see a handler far from the others where it does not say so itself",
        kind="number",
        group="timing",
        least=LEAST_CLIENTS,
        most=1000,
    )
    well_s: float | None = setting(
        None,
        "seconds that such a handler has to be well before it is given load again",
        kind="seconds",
        group="timing",
        least=0.1,
        most=86_400,
    )

    @property
    def times(self) -> dict[str, float]:
        """Those of the preset, and what is set in their place; for mesh.core.timing.Timing.of."""
        own = {name: getattr(self, name) for name in PRESETS[self.timing]}
        return {n: PRESETS[self.timing][n] if own[n] is None else own[n] for n in own}
