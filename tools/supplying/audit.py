"""Asks which packages of the image have a published vulnerability, and whether those here fit together.

The first needs the network. Where the service does not answer, or does not know what everybody knows, that
part is skipped, said so, and no failure.
"""

import argparse
import subprocess
import sys

from tools.supplying import advisories


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--osv-url", default=advisories.OSV, help=f"default {advisories.OSV}")
    service = parser.parse_args().osv_url
    check = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    print(check.stdout.strip())
    if not advisories.answers(service):
        print("skipped: the advisory service cannot be reached, so nobody looked for vulnerabilities")
        return check.returncode
    found = advisories.ask(service, advisories.image())
    if found is None:
        print("the advisory service stopped answering; try again")
        return 1
    for package, names in found.items():
        print(f"{package}: {', '.join(names)}")
    print(f"packages with published vulnerabilities: {len(found)} of {len(advisories.image())}")
    return int(bool(found or check.returncode))
