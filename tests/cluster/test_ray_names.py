"""What Ray shows of a mesh: its actors under the names that `mesh status` uses, in their own namespace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module

import pytest
from running import HANDLERS, Cluster

from mesh.launch import Launched

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

# In a process of its own: this one has no Ray and is to stay without.
LOOK = """
import json, logging, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
print(json.dumps(ray.util.list_named_actors(all_namespaces=True)))
"""


async def test_the_actors_bear_the_names_that_status_uses(cluster: Cluster, name: str) -> None:
    status = await cluster.status()
    done = subprocess.run(  # noqa: ASYNC221 - nothing else runs in this loop
        [sys.executable, "-W", "ignore", "-c", LOOK, status["ray"]["address"]],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={
            **os.environ,
            "RAY_AUTH_MODE": "token",
        },  # Ray protects a cluster that it starts itself
    )
    actors = json.loads(done.stdout.splitlines()[-1])
    assert {actor["namespace"] for actor in actors} == {f"raymesh-{name}"}
    assert sorted(actor["name"] for actor in actors) == [
        *(f"handler h-{i}" for i in range(HANDLERS)),
        "supervisor s-0",
        "supervisor s-1",
        "warden w-0",
    ]


@pytest.mark.parametrize("role", ["handler", "supervisor", "warden"])
def test_what_ray_shows_of_an_actor_for_ever_is_true_for_ever(role: str) -> None:
    # Ray keeps the repr that an actor has before its first call (2.60), so "starting" would be shown of
    # one that has served for weeks.
    actor = getattr(import_module(f"actors.{role}"), f"{role.capitalize()}Actor")
    named = ("x-0",) if role == "handler" else ("m", "x-0")
    assert repr(actor(*named)) == f"{role} x-0"


def test_the_library_does_not_bring_ray_along(shared: Launched) -> None:
    code = (
        "import mesh, mesh.cli, mesh.cli.call, mesh.testing, sys; assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
