"""Published vulnerabilities of pinned packages, through pip-audit; it installs nothing."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from snb.settings import ROOT
from tools.machine import pins

OSV = "https://api.osv.dev/v1/query"
KNOWN = "jinja2==2.10"
"""A release with vulnerabilities published in 2019: a service that has none for it cannot be believed."""
SECONDS = "10"
"""For each answer of the service."""


def image() -> list[str]:
    """Every pin of requirements.txt."""
    return pins(ROOT / "requirements.txt")


def answers(service: str) -> bool:
    """Whether the service can be reached and knows what is known."""
    return bool(ask(service, [KNOWN]))


def ask(service: str, pins: Sequence[str]) -> dict[str, list[str]] | None:
    """The identifiers of the vulnerabilities of each pin that has any; None where there is no answer."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text("\n".join(pins) + "\n", encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "pip_audit",
            "--requirement",
            str(file),
            "--no-deps",
            "--disable-pip",
        ]
        command += ["--vulnerability-service", "osv", "--osv-url", service, "--timeout", SECONDS]
        command += ["--format", "json", "--progress-spinner", "off", "--cache-dir", folder]
        done = subprocess.run(command, capture_output=True, text=True)
    try:
        answered = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return None
    if any("skip_reason" in one for one in answered):
        return None
    return {
        f"{one['name']} {one['version']}": [vulnerability["id"] for vulnerability in one["vulns"]]
        for one in answered
        if one["vulns"]
    }
