"""Measures answers under load: of any Cog server, of a model on Replicate, or of this package, started here.

scripts/benchmark https://host                   a server that speaks Cog's HTTP
scripts/benchmark replicate:owner/name           with REPLICATE_API_TOKEN; also owner/name:version and
                                                 deployments/owner/name
scripts/benchmark --against transformers vllm    this package and others, on this machine's weights
"""
# guidellm makes load too, but speaks OpenAI's HTTP alone: neither Cog's stream nor Replicate's.

import argparse
import tempfile
from pathlib import Path

from tools.benchmarking import report, workload
from tools.benchmarking.peers import PEERS
from tools.benchmarking.programs import lines
from tools.benchmarking.session import TITLE, Session
from tools.command import say
from tools.endpoints.started import OURS, REFERENCE, ours, reference, remote
from tools.serving import local


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("endpoint", nargs="?", help="what to measure (default: this package, started here)")
    add("--workload", nargs="+", choices=workload.TOKENS, default=["chat"])
    add("--concurrency", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32], help="requests at once")
    add("--rounds", type=int, default=3, help="runs of each kind, whose medians are shown (default 3)")
    add("--class", dest="pupils", type=int, default=0, metavar="N", help="also N pupils within one second")
    add("--cold", action="store_true", help="also the first text alone, with a known and an unknown persona")
    add("--output", type=Path, metavar="FOLDER", help="keeps benchmark.json and benchmark.md there")
    here = parser.add_argument_group("on this machine only")
    add = here.add_argument
    add("--bare", action="store_true", help="also one request alone through plain generate")
    add("--overhead", action="store_true", help="also what server and stream add to a tiny model's generate")
    add("--against", nargs="+", choices=(REFERENCE, *PEERS), default=[], help="others, on the same weights")
    add("--load", action="store_true", help="instead: wall time and peak memory of a boot")
    return parser


def measure_here(session: Session, options: argparse.Namespace) -> None:
    """This package, and what it is to be compared with, one after the other."""
    settings, peers = local.settings(), [PEERS[name] for name in options.against if name in PEERS]
    for peer in peers:
        peer.install()  # first: without a network nothing would come of what has been measured by then
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log, tempfile.TemporaryDirectory() as merged:
        session.log = Path(log.name)
        session.measure(OURS, ours(settings, log))
        if options.bare:
            session.bare(settings)
        if REFERENCE in options.against:
            session.measure(REFERENCE, reference(settings, log))
        if peers:
            say("merging the weights into one folder …")
            list(lines(["-m", "tools.benchmarking.child", "merge", merged], settings))
        for peer in peers:
            session.measure(peer.name, peer.started(Path(merged), log))
        if options.overhead:
            session.overhead(log)


def main() -> int:
    parser = arguments()
    options = parser.parse_args()
    if options.load:
        from tools.benchmarking import load_benchmark  # and with it torch, which would sit beside the servers

        load_benchmark.run()
        return 0
    if options.endpoint and (options.bare or options.overhead or options.against):
        parser.error("--bare, --overhead and --against start servers here; leave the endpoint out")
    plan = options.workload, options.concurrency, options.rounds, options.pupils, options.cold
    session = Session(*plan, options.output)
    if options.endpoint:
        session.measure(options.endpoint, remote(options.endpoint))
    else:
        measure_here(session, options)
    print(report.markdown(TITLE, session.tables), end="")
    return 1 if session.failed else 0
