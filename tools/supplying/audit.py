"""Asks which packages of the image have a published vulnerability, and whether those here fit together.

The first is pip-audit's, and needs the network. Where the service does not answer, or does not know what
everybody knows, that part is skipped, said so, and no failure.
"""

import argparse
import subprocess
import sys
import tempfile

from snb.settings import ROOT

OSV = "https://api.osv.dev/v1/query"
KNOWN = "jinja2==2.10"
"""A release with vulnerabilities published in 2019: a service that has none for it cannot be believed."""
OPTIONS = ("--no-deps", "--disable-pip", "--progress-spinner", "off", "--vulnerability-service", "osv")


def audit(service: str, requirements: str) -> "subprocess.CompletedProcess[str]":
    """pip-audit's answer; it writes to stdout what it has found, and nothing else."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", requirements, *OPTIONS]
    return subprocess.run([*command, "--osv-url", service], capture_output=True, text=True)


def believable(service: str) -> bool:
    """Whether the service can be reached and knows what is known."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as known:
        print(KNOWN, file=known, flush=True)
        return bool(audit(service, known.name).stdout)


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--osv-url", default=OSV, help=f"default {OSV}")
    service = parser.parse_args().osv_url
    fit = subprocess.run([sys.executable, "-m", "pip", "check"]).returncode
    if not believable(service):
        print("skipped: the advisory service cannot be reached, so nobody looked for vulnerabilities")
        return fit
    answer = audit(service, str(ROOT / "requirements.txt"))
    print(answer.stderr + answer.stdout, end="")
    return fit or answer.returncode
