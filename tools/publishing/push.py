"""Publishes this project on Replicate as owner/name, if nothing is wrong with it.

scripts/push owner/name --hardware t4

scripts/doctor first: an error, or something that it could not look at, ends it here; a warning does not.
Then `cog push`, with --separate-weights where weights are in the image, and scripts/smoke-test on the result.
Needs `cog login` and REPLICATE_API_TOKEN. The only line on stdout is the id of a version that works; all else
goes to stderr. Exits with 1 where there is no such version.
"""

import argparse
import logging

from snb.settings import ROOT
from tools.publishing import command_line, preflight, publication
from tools.publishing.finding import Finding, summary
from tools.publishing.project import Project


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[command_line.options()],
    )
    add = parser.add_argument
    add("model", type=command_line.model, metavar="owner/name")
    add("--wait", type=float, default=300, metavar="SECONDS", help="for the new version (default 300)")
    return parser


def may_go(project: Project) -> bool:
    """Whether every check was made and found no error; prints what they found."""
    found: list[Finding] = []
    for finding in preflight.run(project):
        publication.say(str(finding))
        found.append(finding)
    publication.say(summary(found))
    # What nobody looked at may be broken, and a push cannot be taken back.
    return not any(finding.level in ("error", "not checked") for finding in found)


def main() -> int:
    logging.disable(logging.WARNING)  # of libraries and of retries: the findings say what matters
    options = arguments().parse_args()
    project = command_line.project(options, ROOT)
    if not may_go(project):
        publication.say("Nothing was pushed.")
        return 1
    try:
        print(publication.publish(project, ROOT / "scripts" / "smoke-test", options.wait))
    except publication.NotPublished as failure:
        publication.say(str(failure))
        return 1
    return 0
