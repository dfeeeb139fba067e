"""Whether this machine has a network; standard library only, for it is asked before anything is installed."""

import socket

NOWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses for documentation (RFC 5737 and 3849). Nothing is sent to them."""


def offline() -> bool:
    """Whether it has no way out, by the system's own table of routes."""
    return not any(_route(family, address) for family, address in NOWHERE)


def _route(family: socket.AddressFamily, address: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
    except OSError:
        return False
    return True
