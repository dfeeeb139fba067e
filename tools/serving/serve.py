"""Serves the philosophers on this machine until Ctrl-C or SIGTERM.

For this machine alone without a key; with --host for others too, who send SNB_API_KEY in the header
`Authorization: Bearer …`."""

import argparse
from ipaddress import IPv4Address

from tools.serving import local
from tools.serving.server import FRONT, Server


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=5000, help="TCP port (default 5000)")
    where = "address to listen on (default: this machine only)"
    parser.add_argument("--host", type=IPv4Address, default="127.0.0.1", help=where)
    options = parser.parse_args()
    try:
        with Server(local.settings(), port=options.port, host=str(options.host), module=FRONT) as server:
            server.wait()
            print(f"Ready: {server.url}", flush=True)
            return server.join()
    except KeyboardInterrupt:
        return 0
