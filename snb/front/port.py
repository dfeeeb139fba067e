"""A TCP port for a server that is started next, and why there is none."""

import contextlib
import socket
from collections.abc import Iterator

from snb.errors import BadSetting


def reserve(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A TCP port of an address that nothing listens on; any, unless one is given.

    Returns:
        A socket that is bound to it and does not listen. While it is open, the system gives nobody this port
        who asks for any; a server that sets SO_REUSEADDR, as Cog does, can listen on it.

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
    """Raises BadSetting in place of the error of a socket that cannot listen there."""
    try:
        yield
    except (OSError, OverflowError) as error:
        fault = f"nothing can listen on {host}:{port}: {error}"
        raise BadSetting(fault, "Choose another host or port") from error
