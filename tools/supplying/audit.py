"""Asks which packages of the image and of the page have a known vulnerability.

Looks in OSV's export of every advisory of PyPI, which it downloads. Without a network, bring it along:

curl -O https://storage.googleapis.com/osv-vulnerabilities/PyPI/all.zip
scripts/audit --database all.zip

Ends with 1 where a package has an advisory, with 3 where nobody could look, and else with 0.
It does not look up the JavaScript client's packages: npm audit --prefix client does.
"""
# pip-audit asks for each package by the network, and reads no export.

import argparse
import json
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen
from zipfile import BadZipFile, ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from snb.settings import ROOT
from tools.command import Fault, plain
from tools.machine import pins

EXPORT = "https://storage.googleapis.com/osv-vulnerabilities/PyPI/all.zip"
FILES = ("requirements.txt", "deploy/space/requirements.txt")
KNOWN = ("jinja2", "2.10")
"""A release with vulnerabilities published in 2019: a database that has none for it cannot be believed."""
NOT_AUDITED = 3
WIDTH = 1000
"""Characters of an advisory's line."""
Advisory = dict[str, Any]
"""As OSV's schema has it: https://ossf.github.io/osv-schema/."""


def packages() -> dict[str, str]:
    """The version of each package that the image and the page pin, by its canonical name."""
    listed = (pin.partition("==") for file in FILES for pin in pins(ROOT / file))
    return {canonicalize_name(Requirement(name).name): version for name, _, version in listed}


def advisories(database: Path | None, releases: Mapping[str, str]) -> tuple[list[tuple[str, str]], str]:
    """What a file, or OSV's export of this moment, has about these releases; and how much, and how old it is.

    Returns:
        the package's name and a line for each advisory; and the source in words.

    Raises:
        Fault: it cannot be had or read, or does not know what everybody knows.
    """
    source = database or EXPORT
    try:
        export = database.read_bytes() if database else urlopen(EXPORT, timeout=60).read()
        with ZipFile(BytesIO(export)) as archive:
            entries = [json.loads(archive.read(name)) for name in archive.namelist()]
        known = [*about(entries, dict([KNOWN]))]
        found = [(name, told(name, releases[name], entry)) for name, entry in about(entries, releases)]
        newest = max([entry["modified"][:10] for entry in entries], default="")
    except URLError as error:
        raise Fault(f"no network reaches {source}: {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise Fault(f"{source} cannot be had: {error}") from error
    except (BadZipFile, ValueError, LookupError, TypeError, AttributeError) as error:
        raise Fault(f"{source} is no export of OSV: {error}") from error
    if not known:
        raise Fault(f"{source} cannot be believed: it has no advisory about {' '.join(KNOWN)}")
    return found, f"{len(entries)} advisories, the newest of {newest}"


def told(name: str, version: str, entry: Advisory) -> str:
    names, summary = [entry["id"], *entry.get("aliases", ())], entry.get("summary", "")
    return plain(f"{name} {version}: {', '.join(names)}: {summary} https://osv.dev/{entry['id']}", WIDTH)


def about(entries: list[Advisory], releases: Mapping[str, str]) -> Iterator[tuple[str, Advisory]]:
    """Each advisory about one of these releases, with the package's name; none that was withdrawn."""
    for entry in entries:
        for affected in () if entry.get("withdrawn") else entry.get("affected", ()):
            package = affected.get("package", {})
            name = canonicalize_name(package["name"]) if package.get("ecosystem") == "PyPI" else ""
            if name in releases and affects(affected, Version(releases[name])):
                yield name, entry


def affects(affected: Advisory, version: Version) -> bool:
    """Whether a version is listed, or in a range of PyPI's versions; the other ranges are of commits.

    In a range the last event that is not after the version counts. Of two at one version it is the later in
    the alphabet: what is fixed and introduced there is affected.
    """
    if version in map(parsed, affected.get("versions", ())):
        return True
    for events in (one["events"] for one in affected.get("ranges", ()) if one["type"] == "ECOSYSTEM"):
        points = [(parsed(at), kind) for event in events for kind, at in event.items()]
        passed = [(at, kind) for at, kind in points if at and at <= version]
        at, kind = max(passed, default=(None, ""))
        if kind == "introduced" or (kind == "last_affected" and at == version):
            return True
    return False


def parsed(text: str) -> Version | None:
    """A version; None for what has not the form of one, as releases before PEP 440 and a limit of `*`."""
    try:
        return Version("0.dev0" if text == "0" else text)  # 0 stands for what comes before every version
    except InvalidVersion:
        return None


def report(database: Path | None) -> int:
    listed = packages()
    try:
        found, source = advisories(database, listed)
    except Fault as fault:
        print(f"NOT AUDITED: {fault}. --database FILE reads one that was brought along; see --help")
        return NOT_AUDITED
    for _, line in found:
        print(line)
    vulnerable = len({name for name, _ in found})
    print(f"{vulnerable} of {len(listed)} packages have a known vulnerability, by {source}.")
    return int(bool(found))


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--database", type=Path, metavar="FILE", help="OSV's export (default: download it)")
    return report(parser.parse_args().database)
