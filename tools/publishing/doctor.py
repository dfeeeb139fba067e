"""What would go wrong if this project were pushed to Replicate now; changes nothing.

scripts/doctor                                   what can be said without a name
scripts/doctor owner/name --hardware t4          against what is published there, on that card

One line for each finding: its level, a stable code, what it is, and what to do. Exits with 1 when one is an
error. Reads all that Docker would send and verifies weights by their hashes, which takes a while.
REPLICATE_API_TOKEN lets it read what is published. It asks only Replicate's API and the model hub, the hub
without a token, as setup() on Replicate does.
"""

import argparse
import logging
import re
from collections.abc import Callable

from snb.settings import ROOT
from tools.publishing import preflight
from tools.publishing.finding import Finding, summary
from tools.publishing.image import HARDWARE
from tools.publishing.project import Project

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?/[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)


def parser(description: str | None, **model: str) -> argparse.ArgumentParser:
    """The options of scripts/doctor and scripts/push; `model` says whether a name has to be given."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=raw)
    add = parser.add_argument
    add("model", type=_model, metavar="owner/name", **model)  # type: ignore[arg-type]
    add("--hardware", choices=HARDWARE, help="what Replicate runs it on; without it, what fits each is said")
    return parser


def report(project: Project, line: Callable[[str], None]) -> list[Finding]:
    """Makes every check, and hands on a line for each finding as it comes, then how many there are."""
    logging.disable(logging.WARNING)  # of libraries and of retries: the findings say what matters
    findings = []
    try:
        for finding in preflight.run(project):
            line(str(finding))
            findings.append(finding)
    finally:
        logging.disable(logging.NOTSET)
    line(summary(findings))
    return findings


def project(options: argparse.Namespace) -> Project:
    """This one, for what the options say."""
    return Project(ROOT, options.model, options.hardware)


def main() -> int:
    options = parser(__doc__, nargs="?").parse_args()
    findings = report(project(options), lambda line: print(line, flush=True))
    return int(any(finding.level == "error" for finding in findings))


def _model(text: str) -> str:
    """`owner/name`, also of the image `r8.im/owner/name`."""
    name = text.removeprefix("r8.im/")
    if not NAME.fullmatch(name):
        raise argparse.ArgumentTypeError("write it as owner/name")
    return name
