"""What a server's error reply means to the user, and what to do about it."""

from __future__ import annotations

from mesh.store.api import StoreRefused


class ServerError(Exception):
    """An error that the server replied with; handed back as a value among the other replies."""

    @property
    def code(self) -> str:
        """The error's first word, such as OOM."""
        return str(self).split(" ", 1)[0]


PERMISSIONS = (
    "~raymesh:* &raymesh:* +@read +@write +@scripting +@connection +info +role +publish +time "
    "+replicaof +config|set"
)
"""The last two are for supervisors, when a primary has died or a replica does not follow."""

_ADVICE: dict[str, tuple[bool, str]] = {
    # code: (transient, what to do)
    "NOREPLICAS": (
        True,
        "too few replicas follow (min-replicas-to-write): start one, or mend its link",
    ),
    "OOM": (
        False,
        "the server is at its memory limit: raise maxmemory (with the policy noeviction)",
    ),
    "READONLY": (True, "this node is a replica now: the next call looks for the primary"),
    "MASTERDOWN": (True, "this node is a replica cut off from its primary: wait for the failover"),
    "LOADING": (True, "the server is loading its data: wait"),
    "MISCONF": (
        False,
        "the server cannot write to its disk: look into its log, free some space",
    ),
    "BUSY": (True, "somebody's script holds the server up: wait, or end it with FUNCTION KILL"),
    "NOAUTH": (False, "the server wants a password: name its secret file, or put it in the URL"),
    "WRONGPASS": (False, "the server does not accept this user and password"),
    "NOPERM": (
        False,
        f"the user lacks a permission: it needs {PERMISSIONS}",
    ),
    "NOFUNCTION": (True, "the mesh's functions are not loaded here yet: its leader loads them"),
    "WRONGTYPE": (
        False,
        "a key under the mesh's prefix is of another type: another program writes there",
    ),
    "MOVED": (False, "Redis Cluster is not supported: name a primary with replicas"),
    "NOCOMMAND": (
        False,
        "a command is not known there: raymesh needs Redis 7.0 or Valkey 7.2, or newer, and no proxy",
    ),
    "MAXCLIENTS": (True, "the server has as many clients as it may: raise maxclients"),
    "DENIED": (
        False,
        "the server is in protected mode, for its own machine only: set a password there (requirepass)",
    ),
    "CLUSTERDOWN": (False, "Redis Cluster is not supported: name a primary with replicas"),
}

_TEXTS = (
    # Errors that are only told apart by their text, across Redis 7.0 to Valkey 9.
    ("Function not found", "NOFUNCTION"),
    ("unknown command", "NOCOMMAND"),
    ("unknown subcommand", "NOCOMMAND"),
    ("max number of clients", "MAXCLIENTS"),
    ("The user executing the script", "NOPERM"),
    ("ACL failure in script", "NOPERM"),
    ("invalid password", "WRONGPASS"),
    ("without any password configured", "WRONGPASS"),
)


def refusal(server: str, error: ServerError) -> StoreRefused:
    """The exception for an error reply of the server named `server`."""
    text = str(error)
    code = next((code for part, code in _TEXTS if part in text), error.code)
    transient, advice = _ADVICE.get(code, (False, "unexpected; the call wrote nothing"))
    return StoreRefused(f"store {server}: {advice} ({text})", code=code, transient=transient)
