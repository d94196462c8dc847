"""Does a Ray answer at that address? Asked before `ray.init`, which tries for minutes and logs riddles.

Ray's control service (GCS) speaks gRPC, so whoever is one answers the first bytes of HTTP/2 with SETTINGS.
"""

from __future__ import annotations

import os
import socket

from mesh.errors import SetupError

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"  # RFC 9113, 3.4
_HEAD_BYTES = 9
_SETTINGS = 4

_WAYS = "start one with `ray start --head`, name another address with --ray, or use --ray local"


def check_ray(address: str, *, within_s: float = 5.0) -> None:
    """Refuse an address at which no Ray can be joined.

    Args:
        address: "local" needs none; "auto" is checked where RAY_ADDRESS says what it stands for, else Ray
            looks for one on this machine, which is quick; or "host:port".
        within_s: seconds for connecting, and again for an answer.

    Raises:
        SetupError: nothing listens there, or something that is no Ray.
    """
    given = f"--ray {address}"
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
        given = f"--ray auto (RAY_ADDRESS={address})"
    if address in ("local", "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise SetupError(f"{given}: not HOST:PORT of a running Ray; {_WAYS}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=within_s) as peer:
            # With TLS it is Ray's own affair who speaks with whom.
            answer = b"" if os.environ.get("RAY_USE_TLS") == "1" else _greeted(peer)
    except TimeoutError:
        why = f"no answer within {within_s:g} s"
    except ConnectionRefusedError:
        why = "nothing listens there"
    except (OSError, OverflowError) as error:
        why = str(error)
    else:
        if answer is None or (answer and answer[3] != _SETTINGS):
            raise SetupError(f"{given}: what listens there is no Ray; {_WAYS}")
        return
    raise SetupError(f"{given}: no Ray was reached, {why}; {_WAYS}")


def _greeted(peer: socket.socket) -> bytes | None:
    """The first bytes of the answer; None where the peer hung up."""
    peer.sendall(_PREFACE)
    head = b""
    while len(head) < _HEAD_BYTES:
        more = peer.recv(_HEAD_BYTES - len(head))
        if not more:
            return None
        head += more
    return head
