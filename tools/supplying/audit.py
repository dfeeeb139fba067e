"""Asks OSV which packages of the image and of the page have a known vulnerability.

Exits with 1 if a package has an advisory, with 3 if OSV could not be asked, else with 0.
The JavaScript client's packages are not looked up: npm audit --prefix client does that.
"""

from collections.abc import Sequence

import httpx2
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from snb.settings import ROOT
from tools.command import Fault, command_line
from tools.machine import pins

API = "https://api.osv.dev/v1/querybatch"
"""https://google.github.io/osv.dev/post-v1-querybatch/"""
FILES = ("requirements.txt", "deploy/space/requirements.txt")
KNOWN = ("jinja2", "2.10")
"""A release with vulnerabilities published in 2019: an answer without them cannot be believed."""
NOT_AUDITED = 3
Release = tuple[str, str]
"""Canonical name and version."""


def packages() -> list[Release]:
    """Each release that the image or the page pins, once."""
    listed = (pin.partition("==") for file in FILES for pin in pins(ROOT / file))
    return sorted({(canonicalize_name(Requirement(name).name), version) for name, _, version in listed})


def advisories(releases: Sequence[Release]) -> list[list[str]]:
    """The ids of the advisories about each release, in the order of `releases`.

    Raises:
        Fault: OSV cannot be asked, or has no advisory about KNOWN.
    """
    asked = [
        {"package": {"name": name, "ecosystem": "PyPI"}, "version": version}
        for name, version in (*releases, KNOWN)
    ]
    try:
        reply = httpx2.post(API, json={"queries": asked}, timeout=60).raise_for_status().json()
        *found, known = [[one["id"] for one in result.get("vulns", ())] for result in reply["results"]]
    except httpx2.HTTPError as error:
        raise Fault(f"{API} does not answer: {error}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Fault(f"{API} answers in another form: {error}") from error
    if not known or len(found) != len(releases):
        raise Fault(f"{API} cannot be believed: it has no advisory about {' '.join(KNOWN)}")
    return found


def main() -> int:
    command_line(__doc__).parse_args()
    releases = packages()
    try:
        found = advisories(releases)
    except Fault as fault:
        print(f"NOT AUDITED: {fault}")
        return NOT_AUDITED
    vulnerable = [(release, ids) for release, ids in zip(releases, found, strict=True) if ids]
    for (name, version), ids in vulnerable:
        print(f"{name} {version}: {', '.join(f'https://osv.dev/{one}' for one in ids)}")
    print(f"{len(vulnerable)} of {len(releases)} packages have a known vulnerability.")
    return int(bool(vulnerable))
