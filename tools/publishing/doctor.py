"""What would go wrong if this project were pushed to Replicate now; changes nothing.

scripts/doctor                                   what can be said without a name
scripts/doctor owner/name --hardware t4          against what is published there, on that card

One line for each finding: its level, a stable code, what was found, and what to do. Exits with 1 when one is
an error. Reads all that Docker would send and verifies weights by their hashes, which takes a
while. REPLICATE_API_TOKEN lets it read what is published. It asks only Replicate's API and the model hub, the
hub without a token, as setup() on Replicate does.
"""

import argparse
import dataclasses
import json
import logging
from pathlib import Path

from snb.settings import ROOT
from tools.publishing import command_line, preflight
from tools.publishing.finding import Finding, summary


def main() -> int:
    """Findings go to stdout."""
    logging.disable(logging.WARNING)  # of libraries and of retries: the findings say what matters
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[command_line.options()],
    )
    add = parser.add_argument
    add("model", nargs="?", type=command_line.model, metavar="owner/name")
    add("--project", type=Path, default=ROOT, metavar="FOLDER", help="default: this one")
    add("--json", action="store_true", help="a list of objects in place of lines")
    options = parser.parse_args()
    found: list[Finding] = []
    for finding in preflight.run(command_line.project(options, options.project)):
        found.append(finding)
        if not options.json:
            print(finding, flush=True)
    if options.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in found], indent=2, ensure_ascii=False))
    else:
        print(summary(found))
    return int(any(finding.level == "error" for finding in found))
