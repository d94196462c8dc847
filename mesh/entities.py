"""What a user writes: a class whose annotated fields are the replicated state of one key.

    @mesh.entity
    class Account:
        balance: int = 0

        @mesh.command
        def deposit(self, amount: int) -> int:
            self.balance += amount
            return self.balance

One name for what the rest of the mesh needs of it: mesh.methods has commands and queries, mesh.specs the
class with its fields and options, mesh.codec (mesh.exttypes, mesh.declared) values as bytes, mesh.migrations
the way from one version to the next, mesh.registry the entities of a mesh, mesh.kv the built-in one.
"""

from mesh.declared import TypeCodec
from mesh.hooks import health
from mesh.kv import KV
from mesh.methods import RESERVED_PARAMETERS, Method, MethodRef, command, query
from mesh.migrations import migrate
from mesh.registry import Registry
from mesh.specs import EntitySpec, entity, spec_of

__all__ = [
    "KV",
    "RESERVED_PARAMETERS",
    "EntitySpec",
    "Method",
    "MethodRef",
    "Registry",
    "TypeCodec",
    "command",
    "entity",
    "health",
    "migrate",
    "query",
    "spec_of",
]
