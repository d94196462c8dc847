"""What has come together while the store was away goes to it in pieces (schedule F14)."""

import re

from mesh.core.outbox import MAX_COMMANDS, Change, Outbox
from mesh.core.records import StoreStatus

PARTITIONS = 256
DOWN_AFTER_S = 0.5
"""Of Sentinels that are quick: so long without an answer, and they take the server for dead."""


async def test_a_backlog_goes_out_in_flushes_of_which_none_keeps_the_server_for_long(on_server):
    """A hundred thousand commands in one call stand before a PING for 0.3 s: the primary is taken for
    dead, the next backlog comes together, and so on.
    """
    await on_server.open(partitions=PARTITIONS)
    grant = await on_server.join(*range(PARTITIONS))
    outbox, commands = Outbox(), 20 * MAX_COMMANDS
    for number in range(commands):
        fields = {b"s%d" % number: bytes(1500), b"o%d" % number: bytes(100)}
        outbox.add(Change(number % PARTITIONS, on_server.epoch(), fields, []))
    await on_server.administer("CONFIG", "RESETSTAT")
    flushes = 0
    while (batch := outbox.next_batch(0)) is not None:
        reply = await on_server.store.commit(0, grant, batch.seq, batch.seq, batch.entries)
        assert reply.status is StoreStatus.OK
        outbox.done(batch)
        flushes += 1
    assert flushes >= commands / MAX_COMMANDS
    stats = (await on_server.administer("INFO", "commandstats")).decode()
    calls = re.search(r"cmdstat_fcall:calls=(\d+),usec=\d+,usec_per_call=([\d.]+)", stats)
    assert calls is not None
    assert int(calls[1]) >= flushes
    assert float(calls[2]) / 1e6 < DOWN_AFTER_S / 10
