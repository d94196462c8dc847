"""What an operator sets is what the parts of a mesh work with."""

from __future__ import annotations

import dataclasses
import logging

import pytest

from actors import priority, runtime
from actors.handler import HandlerActor
from actors.spec import Spec
from actors.supervisor import SupervisorActor
from mesh import logs
from mesh.bringup import _address, _tuning
from mesh.config import MeshConfig
from mesh.core.timing import Timing
from mesh.errors import SetupError
from mesh.timings import PRESETS

SECRET = "open-sesame"
TIMING = Timing.of({**PRESETS["wan"], "beat_s": 0.4}, method_limit_s=7.0)


@pytest.fixture
def config(tmp_path):
    """Every limit away from its default."""
    return MeshConfig(
        store="redis://127.0.0.1:1",
        store_password=SECRET,
        store_open_s=3.0,
        store_wait_s=0.3,
        store_reply_s=4.0,
        store_connect_s=0.5,
        idempotency_window_s=3600.0,
        idempotency_bytes=40_000,
        max_pending=10,
        cache_bytes=2_000_000,
        history_bytes=3_000_000,
        method_limit_s=7.0,
        threads=3,
        max_state_bytes=50_000,
        max_reply_bytes=60_000,
        health_s=0.5,
        write_buffer_bytes=5_000_000,
        hello_s=2.0,
        unauthenticated=3,
        restart_after_s=1.5,
        timing="wan",
        beat_s=0.4,
        health_port=0,
        log_level="warning",
        log_file=str(tmp_path / "mesh.log"),
    )


@pytest.fixture
def spec(config, monkeypatch):
    """What the actors of that mesh are told; the root logger is left as it was found."""
    # This process goes on: nothing of it is to be frozen, nor to precede others.
    monkeypatch.setattr(priority, "precede", lambda: None)
    monkeypatch.setattr(runtime, "settle_memory", lambda: None)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield Spec(
        "m",
        8,
        ("h-0",),
        "127.0.0.1",
        0,
        "",
        _address(config).as_dict(),
        0,
        "process",
        "",
        **_tuning(config),
    )
    for handler in [h for h in root.handlers if h not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    for name in logs._TALKATIVE:
        logging.getLogger(name).setLevel(logging.NOTSET)


async def test_a_handler_has_its_limits_its_store_and_its_log(spec, tmp_path):
    actor = HandlerActor("h-0")
    await actor.start(spec)
    node = actor._node
    try:
        handling = node.settings.handling
        assert (handling.window_s, handling.max_pending) == (3600.0, 10)
        assert handling.caller_bytes == 40_000
        assert handling.cache_bytes == 2_000_000
        assert (handling.history_bytes, handling.replicas) == (3_000_000, 0)
        assert (handling.limit_s, handling.threads, handling.health_s) == (7.0, 3, 0.5)
        assert (handling.max_state_bytes, handling.max_reply_bytes) == (50_000, 60_000)
        limits = handling.limits
        assert (limits.hello_s, limits.unauthenticated) == (2.0, 3)
        assert limits.write_buffer_bytes == 5_000_000
        assert handling.lease == TIMING.lease
        assert node.settings.timing == TIMING
        assert node._health.port > 0
        assert node._store.address.password == SECRET
        logging.getLogger("mesh.node").info("not this")
        logging.getLogger("mesh.node").warning("the password is %s", SECRET)
        [line] = (tmp_path / "mesh.log").read_text().splitlines()
        assert "handler h-0     WARNING  the password is ***" in line
    finally:
        await node.stop()


async def test_a_supervisor_has_its_patience_and_its_limits(spec):
    actor = SupervisorActor("m", "s-0")
    await actor.listen(spec, spec.port)
    try:
        settings = actor._supervisor.settings
        assert (settings.open_s, settings.restart_after_s) == (3.0, 1.5)
        assert settings.limits.unauthenticated == 3
        assert settings.timing == TIMING
        assert settings.health_port == 0
    finally:
        await actor._supervisor.stop()


def test_each_process_of_a_machine_tells_of_its_health_on_a_port_of_its_own(spec):
    assert spec.health_port_of("h-3") == 0, "any that is free"
    told = dataclasses.replace(spec, health_port=8000)
    ids = ["s-0", "s-2", "h-0", "h-3"]
    assert [told.health_port_of(id_) for id_ in ids] == [8000, 8002, 8010, 8013]
    assert dataclasses.replace(spec, health_port=None).health_port_of("h-0") is None


def test_the_stores_time_outs_are_all_passed_on(spec):
    assert spec.store_options == {
        "wait_timeout_s": 0.3,
        "call_timeout_s": 4.0,
        "connect_timeout_s": 0.5,
    }


def test_every_secret_of_a_mesh_is_kept_out_of_its_log(spec):
    address = {**spec.store, "sentinels": {"password": "another"}}
    told = dataclasses.replace(spec, token="token", store=address)
    assert told.secrets == ("token", SECRET, "another")


def test_a_password_in_the_url_and_beside_it_is_refused(config):
    twice = dataclasses.replace(config, store="redis://:other@h")
    with pytest.raises(SetupError, match="keep one"):
        _address(twice)
