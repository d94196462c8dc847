"""Times that cannot work together are refused with both values, wherever they are written."""

from __future__ import annotations

import json

import pytest

from mesh.cli.config import _as_json, render
from mesh.config import MeshConfig
from mesh.config_sources import gather
from mesh.core.timing import Timing
from mesh.errors import SetupError
from mesh.settings import ConfigError
from mesh.timings import PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_work(preset: str) -> None:
    assert Timing.preset(preset) == Timing.of(PRESETS[preset])  # type: ignore[arg-type]
    assert MeshConfig(timing=preset).times == PRESETS[preset]


def test_what_nobody_sets_is_as_for_one_machine() -> None:
    assert Timing() == Timing.of({}) == Timing.preset("local") == Timing.of(MeshConfig().times)


@pytest.mark.parametrize(
    ("times", "both"),
    [
        ({"lease_s": 0.2, "renew_s": 0.25}, ("lease_s (0.2 s)", "renew_s (0.25 s)")),
        ({"renew_s": 0.6}, ("lease_s (1 s)", "2 times renew_s (0.6 s)")),
        ({"probe_s": 1.5}, ("lease_s (1 s)", "probe_s (1.5 s)")),
        ({"lease_margin_s": 0.5}, ("lease_s (1 s)", "lease_margin_s (0.5 s)")),
        ({"lease_read_s": 0.5}, ("lease_s (1 s)", "lease_read_s (0.5 s)")),
        ({"proof_s": 1.0}, ("lease_s (1 s)", "proof_s (1 s)")),
        ({"missed_beats": 9}, ("lease_s (1 s)", "missed_beats 9 times beat_s 0.1 s")),
        ({"beat_s": 0.5, "lease_s": 9.0}, ("gray_s (1.5 s)", "5 times beat_s (0.5 s)")),
        ({"well_s": 1.0}, ("well_s (1 s)", "gray_s (1.5 s)")),
        (
            {"slow_method_s": 5.0, "method_limit_s": 4.0},
            ("method_limit_s (4 s)", "slow_method_s (5 s)"),
        ),
    ],
)
def test_two_times_that_contradict_each_other_are_both_told(
    times: dict[str, float], both: tuple[str, str]
) -> None:
    with pytest.raises(ConfigError) as by_setting:
        MeshConfig(**times)  # type: ignore[arg-type]
    limit_s = times.pop("method_limit_s", 30.0)
    # In a value made by hand, the lease's own check may be the first to refuse it.
    with pytest.raises((ConfigError, ValueError)):
        Timing.of(times, method_limit_s=limit_s)
    assert all(part in str(by_setting.value) for part in both)


def test_one_missed_beat_makes_nobody_a_suspect() -> None:
    with pytest.raises(ConfigError, match="missed_beats must be 2 to 100, not 1"):
        MeshConfig(missed_beats=1)
    with pytest.raises(ConfigError, match=r"missed_beats \(1\) must be 2 or more"):
        Timing(missed_beats=1)


def test_one_client_alone_moves_no_partitions() -> None:
    with pytest.raises(ConfigError, match="gray_clients must be 2 to 1000, not 1"):
        MeshConfig(gray_clients=1)
    with pytest.raises(ConfigError, match=r"gray_clients \(1\) must be 2 or more"):
        Timing(gray_clients=1)


@pytest.mark.parametrize("beat_s", [0.0, -0.1, float("nan"), float("inf")])
def test_a_time_is_a_number_above_zero(beat_s: float) -> None:
    with pytest.raises(ValueError, match="beat_s is a number above 0"):
        Timing(beat_s=beat_s)


# ------------------------------------------------------------------------------ mesh.toml


def test_times_may_stand_in_a_table_of_their_own(tmp_path) -> None:
    (tmp_path / "mesh.toml").write_text('[timing]\npreset = "lan"\nbeat_s = 0.25\n')
    layers = gather({}, {"MESH_PROBE_S": "0.4"}, folder=tmp_path)
    times = layers.config().times
    assert times == {**PRESETS["lan"], "beat_s": 0.25, "probe_s": 0.4}
    assert layers.origin("timing") == "mesh.toml:2"
    assert layers.origin("beat_s") == "mesh.toml:3"


def test_or_with_all_others_but_not_in_both(tmp_path) -> None:
    (tmp_path / "mesh.toml").write_text('[mesh]\ntiming = "wan"\nbeat_s = 0.25\n')
    assert gather({}, {}, folder=tmp_path).config().times["beat_s"] == 0.25
    (tmp_path / "mesh.toml").write_text("[mesh]\nbeat_s = 0.2\n[timing]\nbeat_s = 0.25\n")
    with pytest.raises(SetupError, match=r"mesh.toml:2 and mesh.toml:4 both give the beat_s"):
        gather({}, {}, folder=tmp_path)


def test_a_time_that_is_none_is_told_with_its_line(tmp_path) -> None:
    (tmp_path / "mesh.toml").write_text("[timing]\nbeats_s = 0.2\n")
    with pytest.raises(SetupError, match=r"mesh.toml:2: unknown time 'beats_s'.*'beat_s'"):
        gather({}, {}, folder=tmp_path)
    (tmp_path / "mesh.toml").write_text("[timing]\nlease_s = 0.1\n")
    with pytest.raises(SetupError, match=r"lease_s \(mesh.toml:2\) \(0.1 s\) must be above"):
        gather({}, {}, folder=tmp_path).config()


def test_config_show_says_the_times_of_the_preset_and_where_they_come_from(tmp_path) -> None:
    layers = gather({"timing": "wan", "beat_s": 0.4}, {}, folder=tmp_path)
    shown = json.loads(_as_json(layers))["settings"]
    assert shown["lease_s"]["value"] == 6.0
    assert shown["lease_s"]["from"] == "timing (--timing)"
    assert shown["lease_s"]["default"] == 1.0
    assert (shown["beat_s"]["value"], shown["beat_s"]["from"]) == (0.4, "--beat-s")
    plain = json.loads(_as_json(gather({}, {}, folder=tmp_path)))["settings"]
    assert (plain["lease_s"]["value"], plain["lease_s"]["from"]) == (1.0, "default")
    assert "lease_s" in render(layers)
