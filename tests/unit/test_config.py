"""One value for the whole mesh: what it refuses, and what it says of two that contradict each other."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

import pytest

from mesh.config import SETTINGS, MeshConfig
from mesh.core.handling import HandlingConfig
from mesh.core.members import SupervisionConfig
from mesh.core.wire import Limits
from mesh.errors import SetupError
from mesh.settings import ConfigError, hide_secrets, secrets_in
from mesh.store.redis import RedisStore


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"handlers": 0}, "handlers must be 1 to 1000, not 0"),
        ({"handlers": 1001}, "handlers must be 1 to 1000, not 1001"),
        ({"handlers": True}, "handlers must be a whole number, not True"),
        ({"handlers": "4"}, "handlers must be a whole number, not '4'"),
        ({"handlers": 4.0}, "handlers must be a whole number, not 4.0"),
        ({"handlers": None}, "handlers must be a whole number, not None"),
        ({"dashboard": 1}, "dashboard must be true or false, not 1"),
        ({"store": None}, "store must be a text, not None"),
        ({"port": 65_536}, "port must be 0 to 65535, not 65536"),
        ({"cache_bytes": 0}, "cache_bytes must be 1048576 or more, not 0"),
        ({"timeout": float("nan")}, "timeout must be 0.001 to 86400 s, not nan"),
        ({"store_open_s": float("inf")}, "store_open_s must be 0.1 to 3600 s, not inf"),
        ({"durability": "maybe"}, "'maybe': choose auto, replicated, fsynced or process"),
        ({"log_level": "loud"}, "'loud': choose debug, info, warning or error"),
        ({"name": "a/b"}, "mesh name 'a/b': use 1 to 64 letters"),
        ({"app": "a b"}, 'is not "module" or "module:Class,Class"'),
        ({"ray": "nearby"}, "ray 'nearby': write local, auto or HOST:PORT"),
        ({"ray": "http://head:8265"}, "ray 'http://head:8265': write local, auto or HOST:PORT"),
        ({"ray": "ray://head:10001"}, "is Ray Client's address: name that of the cluster itself"),
    ],
)
def test_what_a_setting_cannot_be_is_refused_with_its_value(settings, said):
    with pytest.raises(SetupError) as caught:
        MeshConfig(**settings)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "both"),
    [
        ({"handlers": 9, "partitions": 8}, ("9 handlers", "8 partitions")),
        ({"host": "0.0.0.0"}, ("host 0.0.0.0", "set a token")),
        (
            {"store_wait_s": 3.0, "store_reply_s": 2.5},
            ("store_reply_s (2.5 s)", "store_wait_s (3 s)"),
        ),
        ({"store_wait_s": 2.0}, ("store_reply_s (2 s)", "store_wait_s (2 s)")),
        (
            {"timeout": 60.0, "idempotency_window_s": 100.0},
            ("idempotency_window_s (100 s)", "timeout (60 s)"),
        ),
    ],
)
def test_two_settings_that_contradict_each_other_are_both_told(settings, both):
    with pytest.raises(ConfigError) as caught:
        MeshConfig(**settings)
    assert all(part in str(caught.value) for part in both)


def test_an_error_calls_each_setting_what_its_origin_says():
    with pytest.raises(ConfigError) as caught:
        MeshConfig(handlers=9, partitions=8)
    told = caught.value.naming(
        {"handlers": "MESH_HANDLERS", "partitions": "mesh.toml:3"}.__getitem__
    )
    assert "lower MESH_HANDLERS or raise mesh.toml:3" in str(told)


def test_a_secret_of_the_wrong_type_is_refused_without_showing_it():
    with pytest.raises(SetupError) as caught:
        MeshConfig(token=271828)  # type: ignore[arg-type]
    assert "token must be a text, not int" in str(caught.value)


def test_no_secret_is_in_its_repr():
    config = MeshConfig(token="hunter2", store_password="hunter3", store="redis://:hunter4@db")
    assert "hunter" not in repr(config)
    assert config.secrets == ("hunter2", "hunter3", "hunter4")


def test_every_setting_is_described_and_has_a_variable_of_its_own():
    assert SETTINGS.keys() == {field.name for field in dataclasses.fields(MeshConfig)}
    assert all(setting.about for setting in SETTINGS.values())
    assert len({setting.variable for setting in SETTINGS.values()}) == len(SETTINGS)
    for setting in SETTINGS.values():
        if setting.kind == "seconds":
            assert setting.about.startswith("seconds")
        if setting.name.endswith("_bytes"):
            assert setting.about.startswith("bytes")


def test_defaults_are_those_of_the_parts_that_are_told():
    """A setting that nobody touched changes nothing."""
    config = MeshConfig()
    assert config.idempotency_window_s == HandlingConfig().window_s
    assert config.idempotency_bytes == HandlingConfig().caller_bytes
    assert config.max_pending == HandlingConfig().max_pending
    assert config.cache_bytes == HandlingConfig().cache_bytes
    assert config.history_bytes == HandlingConfig().history_bytes
    assert config.method_limit_s == HandlingConfig().limit_s
    assert config.threads == HandlingConfig().threads
    assert config.health_s == HandlingConfig().health_s
    assert config.max_state_bytes == HandlingConfig().max_state_bytes
    assert config.max_reply_bytes == HandlingConfig().max_reply_bytes
    for largest in ("max_state_bytes", "max_reply_bytes"):
        assert SETTINGS[largest].most < Limits().frame_bytes, "or it could not be sent"
    assert config.hello_s == Limits().hello_s
    assert config.unauthenticated == Limits().unauthenticated
    assert config.write_buffer_bytes == Limits().write_buffer_bytes
    assert SETTINGS["write_buffer_bytes"].least >= Limits().frame_bytes
    assert config.restart_after_s == SupervisionConfig(()).restart_after_s
    options = inspect.signature(RedisStore).parameters
    assert config.store_wait_s == options["wait_timeout_s"].default
    assert config.store_reply_s == options["call_timeout_s"].default
    assert config.store_connect_s == options["connect_timeout_s"].default


def test_it_passes_through_json_to_the_process_that_owns_the_mesh():
    config = MeshConfig(handlers=2, app="a:B", token="t", log_file="x.log")
    assert MeshConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_its_folders_are_told_from_the_root_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert MeshConfig().log_path == Path("/home/me/.local/share/raymesh/default/mesh.log")
    assert MeshConfig(data_dir="d").log_path == tmp_path / "d/mesh.log"
    assert MeshConfig(data_dir="~/d").data_folder == Path("/home/me/d")
    assert MeshConfig(log_file="l", data_dir="d").log_path == tmp_path / "l"


@pytest.mark.parametrize(
    ("url", "shown", "secrets"),
    [
        ("embedded", "embedded", ()),
        ("redis://db:1", "redis://db:1", ()),
        ("redis://me@db", "redis://***@db", ()),
        ("redis://:pw@db", "redis://***@db", ("pw",)),
        ("redis://me:p%40w@a:1,b:2/1", "redis://***@a:1,b:2/1", ("p%40w", "p@w")),
        ("redis://me:p/w@x@db", "redis://***@db", ("p/w@x",)),
        ("me:pw@db", "***@db", ("pw",)),
        ("redis://db?password=pw&x=1", "redis://db?password=***&x=1", ("pw",)),
        (
            "redis+sentinel://u:pw@a/m?sentinel_password=q#f",
            "redis+sentinel://***@a/m?sentinel_password=***#f",
            ("pw", "q"),
        ),
    ],
)
def test_an_address_is_shown_without_its_passwords(url, shown, secrets):
    assert hide_secrets(url) == shown
    assert secrets_in(url) == secrets
