"""Downloads the base model and the adapter, verifies them, and prints where they are; or prepared weights.

Settings come from the environment; see weights/README.md. Exits with 1 and one line on a fault.
"""

import argparse
import logging

from snb.settings import Settings
from snb.weights import fetch, prepared


def main() -> int:
    """Folders go to stdout, progress and faults to stderr."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verify", action="store_true", help="fetch nothing, only verify what is there")
    verify = parser.parse_args().verify
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs every request
    settings = Settings.from_environment()
    if found := prepared.find(settings, download=not verify):
        print("prepared", found.folder)
        return 0
    for source in fetch.sources(settings):
        ready = fetch.check if verify else fetch.ensure
        print(source.role, ready(source, settings))
    return 0
