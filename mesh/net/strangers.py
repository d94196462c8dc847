"""What a stranger is told who came to the wrong port: a line in the protocol that it speaks.

Whoever points curl, a browser, a metrics scraper or a Redis client here made a mistake with an address, and
reads what their own tool shows of the answer. A frame of this protocol would be shown as garbage.
"""

from __future__ import annotations

from mesh.core.wire import ForeignProtocol

_ADVICE = "call it with mesh.connect() or `mesh call`; `mesh status` shows who listens where"


def answer_to(error: ForeignProtocol) -> bytes:
    """The bytes to answer with before the connection is closed; none where the protocol has no such words."""
    words = f"a raymesh mesh listens here and does not speak {error.speaks}: {_ADVICE}"
    if error.speaks == "HTTP":
        body = f"{words}\n".encode()
        return (
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)
        )
    if error.speaks == "Redis":
        return f"-ERR {words}\r\n".encode()
    return b""
