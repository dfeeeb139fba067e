"""A TCP port for a server that is started next, and why there is none."""

import contextlib
import socket
from collections.abc import Iterator

from snb.errors import BadSetting


def reserve(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Reserves a TCP port that nothing listens on: the one given, or else any.

    Returns:
        A socket that is bound to it and does not listen. While it is open, the system does not hand out this
        port to those who ask for any; a server that sets SO_REUSEADDR, as Cog does, can listen on it.

    Raises:
        OSError: nothing can listen there.
    """
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((host, port))
    except BaseException:
        probe.close()
        raise
    return probe


@contextlib.contextmanager
def fault_named(host: str, port: int) -> Iterator[None]:
    """Turns the error of a socket that cannot listen there into BadSetting."""
    try:
        yield
    except (OSError, OverflowError) as error:
        fault = f"nothing can listen on {host}:{port}: {error}"
        raise BadSetting(fault, "Choose another host or port") from error
