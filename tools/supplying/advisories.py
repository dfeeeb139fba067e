"""What an export of OSV knows of packages of PyPI (https://ossf.github.io/osv-schema/)."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import IO, Any
from zipfile import ZipFile

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

Package = tuple[str, Version]
"""A canonical name, and the version in question."""


@dataclass
class Findings:
    """What an export knows of some packages."""

    advisories: int = 0
    newest: str = ""
    """The day of its newest entry, as 2026-11-27."""
    of: dict[Package, list[str]] = field(default_factory=dict)
    """A line for each advisory about a package."""


def search(export: IO[bytes], packages: Collection[Package]) -> Findings:
    """Reads an export, an archive with a JSON file for each advisory, and keeps what is about these packages.

    Raises:
        BadZipFile, ValueError, LookupError, TypeError: it is not one.
    """
    findings = Findings()
    with ZipFile(export) as archive:
        for name in archive.namelist():
            entry = json.loads(archive.read(name))
            findings.advisories += 1
            findings.newest = max(findings.newest, entry["modified"][:10])
            for package, affected in about(entry, packages):
                if version_in(package[1], affected):
                    findings.of.setdefault(package, []).append(line(entry, package[1], affected))
    return findings


def about(entry: dict[str, Any], packages: Collection[Package]) -> Iterator[tuple[Package, dict[str, Any]]]:
    """Each of the packages that an advisory names, with what it says of it; none once it is withdrawn."""
    for affected in () if entry.get("withdrawn") else entry.get("affected", ()):
        named = affected.get("package", {})
        if named.get("ecosystem") == "PyPI":
            name = canonicalize_name(named["name"])
            yield from ((package, affected) for package in packages if package[0] == name)


def version_in(version: Version, affected: dict[str, Any]) -> bool:
    """Whether it is listed, or in a range of PyPI's versions; the other ranges are of commits."""
    return version in map(parsed, affected.get("versions", ())) or any(
        in_range(version, events) for events in ranges(affected)
    )


def ranges(affected: dict[str, Any]) -> list[list[dict[str, str]]]:
    """The events of each range of versions."""
    return [one["events"] for one in affected.get("ranges", ()) if one["type"] == "ECOSYSTEM"]


def in_range(version: Version, events: list[dict[str, str]]) -> bool:
    """Whether the last event that is not after the version leaves it affected.

    Of two at one version the later in the alphabet counts: what is fixed and introduced there is affected.
    """
    points = [(parsed(at), kind) for event in events for kind, at in event.items()]
    passed = [(at, kind) for at, kind in points if at and at <= version]
    at, kind = max(passed, default=(None, ""))
    return kind == "introduced" or (kind == "last_affected" and at == version)


def parsed(text: str) -> Version | None:
    """A version; None for what has not the form of one, as releases before PEP 440 and a limit of `*`."""
    try:
        return Version("0.dev0" if text == "0" else text)  # 0 stands for what comes before every version
    except InvalidVersion:
        return None


def line(entry: dict[str, Any], version: Version, affected: dict[str, Any]) -> str:
    """An advisory's names, the first later version that is not affected, and what it is about."""
    events = [event for events in ranges(affected) for event in events]
    later = [at for event in events if (at := parsed(event.get("fixed", ""))) and at > version]
    summary = " ".join(entry.get("summary", entry.get("details", "")).split())[:200]
    fixed = f"fixed in {min(later)}" if later else "no fix known"
    return f"{', '.join([entry['id'], *entry.get('aliases', ())])}: {fixed}: {summary}"
