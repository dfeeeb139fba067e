"""Asks which packages of the image and of the page have a known vulnerability, and whether those here fit.

Looks in OSV's export of every advisory of PyPI, which it downloads. Without a network, bring it along:

curl -O https://storage.googleapis.com/osv-vulnerabilities/PyPI/all.zip
scripts/audit --database all.zip

Ends with 1 where a package has an advisory or does not fit, with 3 where nobody could look, and else with 0.
It does not look up the JavaScript client's packages: npm audit --prefix client does.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen
from zipfile import BadZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from snb.settings import ROOT
from tools.command import Fault
from tools.machine import pins
from tools.supplying.advisories import Findings, Package, search

EXPORT = "https://storage.googleapis.com/osv-vulnerabilities/PyPI/all.zip"
FILES = ("requirements.txt", "deploy/space/requirements.txt")
KNOWN = ("jinja2", Version("2.10"))
"""A release with vulnerabilities published in 2019: a database that has none for it cannot be believed."""
NOT_AUDITED = 3


def packages() -> Iterator[Package]:
    """What the image and the page install, with the versions that are pinned."""
    for pin in sorted({pin for file in FILES for pin in pins(ROOT / file)}):
        yield canonicalize_name(Requirement(pin).name), Version(pin.rpartition("==")[2])


def look(database: Path | None) -> Findings:
    """What a file, or OSV's export of this moment, knows of the packages.

    Raises:
        Fault: it cannot be had or read, or does not know what everybody knows.
    """
    source = database or EXPORT
    try:
        export = database.read_bytes() if database else urlopen(EXPORT, timeout=60).read()
        findings = search(BytesIO(export), {*packages(), KNOWN})
    except URLError as error:
        raise Fault(f"no network reaches {source}: {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise Fault(f"{source} cannot be had: {error}") from error
    except (BadZipFile, ValueError, LookupError, TypeError) as error:
        raise Fault(f"{source} is no export of OSV: {error}") from error
    if not findings.of.pop(KNOWN, None):
        raise Fault(f"{source} cannot be believed: it has no advisory about {KNOWN[0]} {KNOWN[1]}")
    return findings


def report(database: Path | None) -> int:
    """Prints what is known of the packages; the exit code."""
    try:
        findings = look(database)
    except Fault as fault:
        print(f"NOT AUDITED: {fault}. --database FILE reads one that was brought along; see --help")
        return NOT_AUDITED
    for (name, version), advisories in sorted(findings.of.items()):
        print(*(f"{name} {version}: {advisory}" for advisory in advisories), sep="\n")
    age = (date.today() - date.fromisoformat(findings.newest)).days
    source = f"{findings.advisories} advisories, the newest of {findings.newest}, {age} days ago"
    print(f"{len(findings.of)} of {len(list(packages()))} packages have a known vulnerability, by {source}.")
    return int(bool(findings.of))


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--database", type=Path, metavar="FILE", help="OSV's export (default: download it)")
    database = parser.parse_args().database
    # In a session of its own Ctrl-C does not reach pip, which would trace its own imports.
    fit = subprocess.run([sys.executable, "-m", "pip", "check"], start_new_session=True).returncode
    return report(database) or fit
