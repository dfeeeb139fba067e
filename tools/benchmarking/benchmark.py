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

from tools.benchmarking import benchmark_record, benchmark_table, workload
from tools.benchmarking.peers import PEERS
from tools.benchmarking.session import Plan, Session, merged
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
    add("--price", type=float, default=0.0, help="of one second of the server, for the cost of an answer")
    add("--output", type=Path, metavar="FOLDER", help="keeps benchmark.json and benchmark.md there")
    here = parser.add_argument_group("on this machine only")
    add = here.add_argument
    add("--bare", action="store_true", help="also one request alone through plain generate")
    add("--overhead", action="store_true", help="also what server and stream add to a tiny model's generate")
    add("--against", nargs="+", choices=(REFERENCE, *PEERS), default=[], help="others, on the same weights")
    add("--load", action="store_true", help="instead: wall time and peak memory of a boot")
    add("--precision", choices=("nf4", "int8", "bf16"), default="nf4", help="of --load (default nf4)")
    return parser


def measure(session: Session, options: argparse.Namespace) -> None:
    """Every server that the command line names, one after the other."""
    if options.endpoint:
        session.measure(options.endpoint, remote(options.endpoint))
        return
    settings = local.settings()
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log, tempfile.TemporaryDirectory() as folder:
        session.log = Path(log.name)
        session.measure(OURS, ours(settings, log))
        if options.bare:
            session.bare(settings)
        for name in options.against:
            if name == REFERENCE:
                session.measure(name, reference(settings, log))
            else:
                session.measure(name, PEERS[name].started(lambda: merged(settings, Path(folder)), log))
        if options.overhead:
            session.overhead(log)


def keep(session: Session, options: argparse.Namespace) -> None:
    """Writes what there is so far, so that an interrupted session is not lost."""
    if folder := options.output:
        folder.mkdir(parents=True, exist_ok=True)
        measured = session.runs, session.starts, session.faults, options.price
        benchmark_record.write(folder / "benchmark.json", *measured)
        (folder / "benchmark.md").write_text(report(session, options), encoding="utf-8")


def report(session: Session, options: argparse.Namespace) -> str:
    """The tables."""
    return benchmark_table.write(session.runs, session.starts, options.price)


def main() -> int:
    parser = arguments()
    options = parser.parse_args()
    if options.load:
        from tools.benchmarking import load_benchmark  # and with it torch, which would sit beside the servers

        load_benchmark.run(options.precision)
        return 0
    if options.endpoint and (options.bare or options.overhead or options.against):
        parser.error("--bare, --overhead and --against start servers here; leave the endpoint out")
    plan = Plan(options.workload, options.concurrency, options.rounds, options.pupils, options.cold)
    session = Session(plan, lambda session: keep(session, options))
    measure(session, options)
    print(report(session, options), end="")
    return 1 if session.failed else 0
