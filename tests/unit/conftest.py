"""A store in memory, a leader's hand, and a handler that owns everything."""

import pytest
from unit.client_rig import A, B, Client
from unit.rigs import PARTITIONS, Handler, Leader

from mesh.store.memory import MemoryServer


@pytest.fixture
def server():
    return MemoryServer()


@pytest.fixture
def leader(server):
    leader = Leader(server)
    leader.open_life()
    return leader


@pytest.fixture
def handler(server, leader):
    """The owner of every partition, told so."""
    handler = Handler(server)
    leader.takeover(dict.fromkeys(range(PARTITIONS), handler.nonce), enroll=[handler.nonce])
    handler.core.on_grant(leader.grant(handler.nonce), handler.now)
    handler.core.on_table(leader.table(), handler.now)
    handler.messages()
    return handler


@pytest.fixture
def client():
    """Two handlers, two partitions, everything connected."""
    client = Client()
    client.table((A, 1), (B, 1))
    client.up(A, B)
    return client
