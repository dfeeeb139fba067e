"""Serves the philosophers on this machine until Ctrl-C or SIGTERM.

Without a GPU or the weights a small stand-in answers, and says so. By default the server is for this machine
alone and needs no key; with --host it is for others too, who send SNB_API_KEY as `Authorization: Bearer …`.
On a machine with a GPU they never get the stand-in: with HF_TOKEN the server downloads the weights first."""

from ipaddress import IPv4Address

from snb.front.__main__ import check_public
from snb.settings import Settings
from tools.command import Fault, command_line, say
from tools.machine import has_gpu
from tools.serving import local
from tools.serving.server import FRONT, Server


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("--port", type=int, default=5000, help="TCP port (default 5000)")
    where = "address to listen on (default: this machine only)"
    parser.add_argument("--host", type=IPv4Address, default=IPv4Address("127.0.0.1"), help=where)
    asked = parser.parse_args()
    environment, served = chosen(asked.host, asked.port)
    try:
        with Server(environment, port=asked.port, host=str(asked.host), module=FRONT) as server:
            server.wait()
            print(f"Ready: {server.url}\nServing {served}", flush=True)
            return server.join()
    except KeyboardInterrupt:
        return 0


def chosen(host: IPv4Address, port: int) -> tuple[dict[str, str], str]:
    """The environment of the server, and what it serves, in words.

    Raises:
        Fault: others would get the stand-in of a machine with a GPU.
        BadSetting: strangers could ask, or the environment is not what a server would boot with.
    """
    settings, why = Settings.from_environment(), local.standin_reason()
    check_public(str(host), settings.api_key)
    if why and (host.is_loopback or not has_gpu()):
        return local.settings(), f"a 135M stand-in, which is no philosopher: {why}"
    if why and not settings.hf_token:
        cure = f"set HF_TOKEN, or type scripts/download-weights && scripts/serve --host {host} --port {port}"
        raise Fault(f"{why}, and a class would get a stand-in: {cure}")
    if why:
        say(f"{why}: the server downloads them first …")
    return {}, f"{settings.base_model} with adapter {settings.adapter}"
