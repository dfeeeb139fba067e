"""Serves the philosophers on this machine until Ctrl-C or SIGTERM.

Without a GPU, or without their weights (scripts/download-weights), a small stand-in answers, which it says.

For this machine alone without a key; with --host for others too, who send SNB_API_KEY in the header
`Authorization: Bearer …`."""

import argparse
from ipaddress import IPv4Address

from snb.front.__main__ import check_public
from snb.settings import Settings
from tools.command import Fault
from tools.machine import has_gpu
from tools.serving import local
from tools.serving.server import FRONT, Server


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=5000, help="TCP port (default 5000)")
    where = "address to listen on (default: this machine only)"
    parser.add_argument("--host", type=IPv4Address, default=IPv4Address("127.0.0.1"), help=where)
    options = parser.parse_args()
    chosen, why = Settings.from_environment(), local.standin_reason()
    check_public(str(options.host), chosen.api_key)
    if why and has_gpu() and not options.host.is_loopback:
        again = f"scripts/serve --host {options.host} --port {options.port}"
        raise Fault(f"{why}, and a class would get a stand-in: type scripts/download-weights && {again}")
    weights = f"{chosen.base_model} with adapter {chosen.adapter}"
    what = f"a 135M stand-in, which is no philosopher: {why}" if why else weights
    try:
        with Server(local.settings(), port=options.port, host=str(options.host), module=FRONT) as server:
            server.wait()
            print(f"Ready: {server.url}\nServing {what}", flush=True)
            return server.join()
    except KeyboardInterrupt:
        return 0
