"""Downloads and verifies the base model and the adapter, or prepared weights, and prints where they are.

Settings come from the environment; see weights/README.md. On a fault, exits with 1 and one line.
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
