"""The times by which a mesh tells who is alive: presets, and which of them cannot work together.

Plain figures by name, so that settings can be checked long before anything is started; what they mean for a
running mesh is mesh.core.timing.Timing, which is made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mesh.settings import ConfigError, Ref

PRESETS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        # Everything on one machine, or on a few in one rack: a stopped handler is replaced in half a second.
        "local": MappingProxyType(
            {
                "lease_s": 1.0,
                "lease_margin_s": 0.05,
                "renew_s": 0.25,
                "lease_read_s": 0.1,
                "beat_s": 0.1,
                "missed_beats": 3,
                "probe_s": 0.1,
                "kill_s": 0.5,
                "proof_s": 0.2,
                "slow_method_s": 1.0,
                "gray_s": 1.5,
                "gray_floor_s": 0.002,
                "gray_clients": 3,
                "well_s": 10.0,
            }
        ),
        # Several zones of one region, whose machines and networks also belong to others.
        "lan": MappingProxyType(
            {
                "lease_s": 2.0,
                "lease_margin_s": 0.1,
                "renew_s": 0.4,
                "lease_read_s": 0.2,
                "beat_s": 0.2,
                "missed_beats": 3,
                "probe_s": 0.3,
                "kill_s": 0.5,
                "proof_s": 0.3,
                "slow_method_s": 1.0,
                "gray_s": 2.0,
                "gray_floor_s": 0.005,
                "gray_clients": 3,
                "well_s": 15.0,
            }
        ),
        # Regions far from one another: 100 to 300 ms of round trip, and seconds of loss now and then.
        "wan": MappingProxyType(
            {
                "lease_s": 6.0,
                "lease_margin_s": 0.3,
                "renew_s": 1.0,
                "lease_read_s": 0.5,
                "beat_s": 0.5,
                "missed_beats": 4,
                "probe_s": 1.0,
                "kill_s": 1.0,
                "proof_s": 0.8,
                "slow_method_s": 2.0,
                "gray_s": 3.0,
                "gray_floor_s": 0.05,
                "gray_clients": 3,
                "well_s": 30.0,
            }
        ),
    }
)
"""Seconds, and numbers of beats and of clients, by the name of the preset and of the setting."""

LEAST_MISSED = 2
LEAST_CLIENTS = 2


def refuse_unworkable(times: Mapping[str, float]) -> None:
    """Refuse times that contradict each other.

    Args:
        times: by the names of a preset; and `method_limit_s`, where there is one.

    Raises:
        ConfigError: two of them cannot both hold; it prints both.
    """
    if times["missed_beats"] < LEAST_MISSED:
        raise ConfigError(
            Ref("missed_beats"),
            f" ({times['missed_beats']:g}) must be {LEAST_MISSED} or more: one beat that is late says "
            f"nothing",
        )
    if times["gray_clients"] < LEAST_CLIENTS:
        raise ConfigError(
            Ref("gray_clients"),
            f" ({times['gray_clients']:g}) must be {LEAST_CLIENTS} or more: one client that is ill itself "
            f"would move the partitions of a handler that is well",
        )
    suspect_s = times["beat_s"] * times["missed_beats"]
    for lesser, factor, greater, why in _ORDER:
        if lesser not in times or greater not in times:
            continue
        if times[lesser] * factor >= times[greater]:
            of = "" if factor == 1 else f"{factor:g} times "
            raise ConfigError(
                Ref(greater),
                f" ({times[greater]:g} s) must be above {of}",
                Ref(lesser),
                f" ({times[lesser]:g} s): {why}",
            )
    if suspect_s + times["probe_s"] >= times["lease_s"]:
        raise ConfigError(
            Ref("lease_s"),
            f" ({times['lease_s']:g} s) must be above the {suspect_s + times['probe_s']:g} s after which a "
            f"silent handler is looked at (",
            Ref("missed_beats"),
            f" {times['missed_beats']:g} times ",
            Ref("beat_s"),
            f" {times['beat_s']:g} s, and ",
            Ref("probe_s"),
            f" {times['probe_s']:g} s): it would lose its partitions before anybody had looked",
        )


_ORDER: tuple[tuple[str, float, str, str], ...] = (
    ("renew_s", 1, "lease_s", "a lease that ends before it is renewed is none"),
    ("renew_s", 2, "lease_s", "a single renewal that is late would end the lease"),
    ("lease_margin_s", 2, "lease_s", "nothing would be left of the lease"),
    ("lease_read_s", 2, "lease_s", "a lease would be out before anybody had seen it stop"),
    ("probe_s", 1, "lease_s", "the lease would be out before the probe is"),
    ("proof_s", 1, "lease_s", "waiting for the lease would be quicker than the kill"),
    ("beat_s", 5, "gray_s", "too few beats would tell a slow handler from a busy one"),
    (
        "gray_s",
        1,
        "well_s",
        "a handler would be taken back before it could be seen to be ill again",
    ),
    ("slow_method_s", 1, "method_limit_s", "a method is to be named before it is ended"),
)
"""The first, times the factor, must be below the other; and why."""
