"""By which times a mesh tells who is alive: one frozen value for all its processes.

Three spans hang together, and each next one begins where the one before it has brought nothing:

    beats     a silent handler, or one whose loop does not turn, is suspected after missed_beats · beat_s
    a look    a probe through its loop, and its warden's eye; both within probe_s; a stopped one is killed
    lease     whom nobody can look at is taken over once it has not renewed for lease_s

So a lease has to outlast beats and probe, and a renewal has to fit into it twice. Presets are in
mesh.timings, as are the rules that refuse what cannot work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from mesh.core.lease import LeaseTiming
from mesh.timings import PRESETS, refuse_unworkable

Preset = Literal["local", "lan", "wan"]

_LOCAL = PRESETS["local"]


@dataclass(frozen=True, slots=True)
class Timing:
    """When somebody is late, and what for.

    Raises:
        ConfigError: two of them cannot both hold; it prints both.
        ValueError: one is no number above 0.
    """

    lease: LeaseTiming = field(default_factory=LeaseTiming)
    """How long a handler may answer without having renewed; the last resort against one that nobody can
    see. Longer: keys of such a handler wait longer. Shorter: a slow store interrupts queries.
    """
    beat_s: float = _LOCAL["beat_s"]
    """Seconds between two beats of a handler. Shorter costs CPU, longer detects later."""
    missed_beats: int = int(_LOCAL["missed_beats"])
    """So many beats without a sign make a suspect; at least 2. A suspect is looked at, no more: it keeps its
    partitions.
    """
    probe_s: float = _LOCAL["probe_s"]
    """Seconds that a suspect's loop has for answering a probe. Until then not even a stopped one is killed;
    longer than a busy loop's turn, or busy ones are looked at for nothing.
    """
    kill_s: float = _LOCAL["kill_s"]
    """Seconds after a warden's look in which a kill that was ordered upon it may still be carried out.
    Longer: an order that was delayed may hit a handler that has recovered, though the warden looks again.
    """
    proof_s: float = _LOCAL["proof_s"]
    """Seconds that a kill has for being proved; then the lease is waited out instead."""
    slow_method_s: float = _LOCAL["slow_method_s"]
    """Seconds that a method may keep the loop from turning before it is reported by name."""
    method_limit_s: float = 30.0
    """Seconds that a loop may go without a turn, as long as its process could run: sleeping, or burning its
    own CPU. Then it is killed. A method's own limit_s, where it is longer, counts instead.
    """
    gray_s: float = _LOCAL["gray_s"]
    """Seconds for which a handler is an outlier among its peers before it loses partitions: a tenth of them,
    half, all, a quarter as long after one another. Longer forgives more, and moves later.
    """
    gray_floor_s: float = _LOCAL["gray_floor_s"]
    """Seconds of latency below which no difference between handlers matters."""
    gray_factor: float = 4.0
    """So many times slower than the median of its peers is an outlier."""
    gray_clients: int = int(_LOCAL["gray_clients"])
    """A handler whose own beats are as usual is an outlier once so many machines of clients say so; at least
    2. Fewer: a rack's bad network moves partitions. What its beats say a single client bears out.
    """
    well_s: float = _LOCAL["well_s"]
    """Seconds without any sign before a handler is given load again, a tenth at first; doubled each time that
    it falls ill again.
    """
    most_stretch: float = 8.0
    """A judge that is late itself waits up to so many times longer (Lifeguard, DSN 2018)."""
    panic_share: float = 1 / 3
    """Where more than this share of the failure domains is suspect at once, only proofs count: it is more
    likely the judge who is cut off.
    """

    def __post_init__(self) -> None:
        for known in fields(self):
            value = getattr(self, known.name)
            if known.name != "lease" and not 0 < value < math.inf:
                raise ValueError(f"{known.name} is a number above 0, not {value!r}")
        refuse_unworkable(
            {
                "lease_s": self.lease.duration_s,
                "lease_margin_s": self.lease.margin_s,
                "renew_s": self.lease.renew_s,
                "lease_read_s": self.lease.read_s,
                **{k.name: getattr(self, k.name) for k in fields(self) if k.name != "lease"},
            }
        )

    @classmethod
    def of(cls, times: Mapping[str, float], *, method_limit_s: float = 30.0) -> Timing:
        """Make one of the figures of a preset, some of which may have been changed.

        Args:
            times: see mesh.timings.PRESETS; what is left out is as in "local".
            method_limit_s: see there.
        """
        all_ = {**_LOCAL, **times}
        return cls(
            LeaseTiming(
                duration_s=all_.pop("lease_s"),
                margin_s=all_.pop("lease_margin_s"),
                renew_s=all_.pop("renew_s"),
                read_s=all_.pop("lease_read_s"),
            ),
            missed_beats=int(all_.pop("missed_beats")),
            gray_clients=int(all_.pop("gray_clients")),
            method_limit_s=method_limit_s,
            **all_,
        )

    @classmethod
    def preset(cls, name: Preset) -> Timing:
        """As it ships: everything on one machine or rack, zones of one region, or distant regions."""
        return cls.of(PRESETS[name])

    @property
    def suspect_s(self) -> float:
        """After so long without a turn of its loop a handler is suspected."""
        return self.beat_s * self.missed_beats

    @property
    def turn_s(self) -> float:
        """How often a handler's loop counts its own turns."""
        return self.beat_s / 4
