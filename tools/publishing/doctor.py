"""Says what would go wrong if this project were pushed to Replicate now; changes nothing.

scripts/doctor                                   what can be checked without a model's name
scripts/doctor owner/name --hardware t4          for that model, on that card

Prints one line per finding: its level, a stable code, what it is, and what to do. Exits with 1 if one is an
error. Searches what Docker would send for secrets and verifies weights by their hashes, which takes a while.
REPLICATE_API_TOKEN lets it see the model. It asks only Replicate's API and the model hub, the latter without
a token, as setup() on Replicate does.
"""

import argparse
import logging
import re
from collections.abc import Callable, Iterable, Iterator

from snb.errors import SNBError
from snb.settings import ROOT
from snb.weights import fetch
from tools.command import command_line
from tools.publishing import installed, limits, published, secret_scan, sources
from tools.publishing.finding import LEVELS, Finding, Level
from tools.publishing.project import Project

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?/[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)


def options(description: str | None, **model: str) -> Project:
    """This project, with the command line's model and hardware; `model` holds options of that argument."""
    parser = command_line(description)
    add = parser.add_argument
    add("model", type=_model, metavar="owner/name", **model)  # type: ignore[arg-type]
    add("--hardware", choices=limits.HARDWARE, help="what Replicate runs it on; without it, each is judged")
    asked = parser.parse_args()
    return Project(ROOT, asked.model, asked.hardware)


def weights(project: Project) -> Iterator[Finding]:
    """Which weights the image will find, and whether the adapter fits the base."""
    yield from (held.finding for held in project.weights)
    base = project.weights[-1]
    if base.config and not base.precision and all(held.finding.level == "ok" for held in project.weights):
        fetch.fit(project.settings, base.config)


Check = Callable[[Project], Iterator[Finding]]
CODE: tuple[Check, ...] = (
    *(sources.pins, sources.packages, sources.sdk),
    *(sources.settings, sources.inputs, sources.files, sources.personas),
)
"""Checks of what the image of any host needs."""
CHECKS: tuple[Check, ...] = (
    *(*CODE, installed.programs, installed.login, published.model, weights),
    *(secret_scan.check, limits.build, limits.setup_time, limits.card),
)


def findings(project: Project, checks: Iterable[Check] = CHECKS) -> Iterator[Finding]:
    """The findings of these checks, as they come. A fault that stops several checks is reported once."""
    told: set[str] = set()
    for check in checks:
        try:
            yield from check(project)
        except SNBError as failure:
            level: Level = "not checked" if isinstance(failure, published.ApiSilent) else "error"
            if str(failure) not in told:
                yield Finding(level, failure.code, "; ".join(failure.faults), failure.cure)
            told.add(str(failure))


def report(project: Project, line: Callable[[str], None], checks: Iterable[Check] = CHECKS) -> set[Level]:
    """Calls `line` with each finding, then with the count of each level; returns the levels that occurred."""
    logging.disable(logging.WARNING)  # those of libraries and retries: the findings say what matters
    levels: list[Level] = []
    try:
        for finding in findings(project, checks):
            line(str(finding))
            levels.append(finding.level)
    finally:
        logging.disable(logging.NOTSET)
    line(", ".join(f"{level}: {levels.count(level)}" for level in LEVELS))
    return {*levels}


def main() -> int:
    levels = report(options(__doc__, nargs="?"), lambda line: print(line, flush=True))
    return int("error" in levels)


def _model(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError("write it as owner/name")
    return text
