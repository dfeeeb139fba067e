"""Asks each philosopher of an endpoint that runs one question, and checks what a caller relies on.

scripts/smoke-test https://host                   a server that speaks Cog's HTTP; SNB_API_KEY is its key
scripts/smoke-test owner/name                     on Replicate, with REPLICATE_API_TOKEN; also
                                                  owner/name:version and deployments/owner/name

One line a check: ok, FAILED, a warning to think about, or a note. Ends with 0 if nothing failed, else with 1.
"""

import argparse
import os

from tools.rehearsing import smoke
from tools.rehearsing.verdict import FAILED, Verdict

SECRETS = ("REPLICATE_API_TOKEN", "SNB_API_KEY")


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("endpoint", help="a URL, or a model or deployment on Replicate")
    add("--boot", type=float, default=600, metavar="SECONDS", help="to be ready in (default 600)")
    add("--limit", type=float, default=120, metavar="SECONDS", help="for each answer (default 120)")
    return parser


def shown(verdict: Verdict) -> str:
    """Its line, without the token and the key."""
    return verdict.line(os.environ.get(name, "") for name in SECRETS)


def main() -> int:
    options = arguments().parse_args()
    found: list[Verdict] = []
    for verdict in smoke.verdicts(options.endpoint, options.boot, options.limit):
        print(shown(verdict), flush=True)
        found.append(verdict)
    failures = [verdict for verdict in found if verdict.state == FAILED]
    if not failures:
        print(f"\nAll well: {len(found)} lines, nothing failed.")
        return 0
    print(f"\n{len(failures)} failed:", *map(shown, failures), sep="\n")
    return 1
