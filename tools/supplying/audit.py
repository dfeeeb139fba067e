"""Asks which packages of the image have a published vulnerability, and whether those here fit together.

The first is pip-audit's, and needs the network: where the service does not answer it is skipped, said so, and
no failure.
"""

import argparse
import subprocess
import sys

from snb.settings import ROOT

OSV = "https://api.osv.dev/v1/query"
AUDIT = (
    *(sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / "requirements.txt")),
    *("--no-deps", "--disable-pip", "--progress-spinner", "off", "--vulnerability-service", "osv"),
)


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--osv-url", default=OSV, help=f"default {OSV}")
    service = parser.parse_args().osv_url
    fit = subprocess.run([sys.executable, "-m", "pip", "check"]).returncode
    audit = subprocess.run([*AUDIT, "--osv-url", service], capture_output=True, text=True)
    if audit.returncode and not audit.stdout:  # a table means that something was found
        print("skipped: the advisory service cannot be reached, so nobody looked for vulnerabilities")
        return fit
    print(audit.stderr + audit.stdout, end="")
    return fit or audit.returncode
