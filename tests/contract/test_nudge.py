"""A confirmation that TCP holds back is set free by a PUBLISH that nobody listens to."""

from __future__ import annotations

import re
from dataclasses import replace


async def published(mesh) -> int:
    """How many times anyone has published on this server."""
    stats = await mesh.administer("INFO", "commandstats")
    found = re.search(rb"cmdstat_publish:calls=(\d+)", stats)
    return int(found[1]) if found else 0


async def test_a_write_that_waits_long_for_a_replica_is_nudged(on_redis):
    await on_redis.open()
    grant = await on_redis.join(1)
    await on_redis.read(grant, 1, b"a")  # the connection that nudges is open, as a handler's is
    link = (await on_redis.store.links())[0]
    before = await published(on_redis)
    await on_redis.pause(link)
    try:
        reply = await on_redis.store.commit(0, grant, 1, 1, [on_redis.entry(1, a=b"x")])
        assert not reply.acknowledged
    finally:
        await on_redis.resume(link)
    assert await published(on_redis) > before


async def test_nothing_is_published_while_nobody_waits(on_redis):
    await on_redis.open()
    grant = await on_redis.join(1)
    await on_redis.read(grant, 1, b"a")  # behind what is left of the enrolment's own nudge
    before = await published(on_redis)
    for _ in range(20):
        await on_redis.read(grant, 1, b"a")
    assert await published(on_redis) == before


async def test_a_user_who_may_not_publish_can_still_commit(on_redis, caplog):
    name = "quiet"
    permissions = "~raymesh:* +@all -publish"
    await on_redis.administer("ACL", "SETUSER", name, "reset", "on", ">pw", *permissions.split())
    await on_redis.open()
    grant = await on_redis.join(1)
    try:
        store = on_redis.another(replace(on_redis.address, username=name, password="pw"))
        link = (await on_redis.store.links())[0]
        await on_redis.pause(link)
        try:
            await store.commit(0, grant, 1, 1, [on_redis.entry(1, a=b"x")])
        finally:
            await on_redis.resume(link)

        async def refused() -> bool:
            return "PUBLISH was refused" in caplog.text

        await on_redis.until(refused)
        # The replica was just resumed; the same batch is acknowledged once it has caught up.

        async def acknowledged() -> bool:
            reply = await store.commit(0, grant, 1, 1, [on_redis.entry(1, a=b"x")])
            return reply.acknowledged

        await on_redis.until(acknowledged)
    finally:
        await on_redis.administer("ACL", "DELUSER", name)
