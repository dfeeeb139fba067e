"""The options that scripts/doctor and scripts/push share, and the project that they describe."""

import argparse
import os
from pathlib import Path

from huggingface_hub.utils import disable_progress_bars

from tools.pricing import prices
from tools.publishing.card_fit import HARDWARE, card_of
from tools.publishing.project import Project
from tools.publishing.replicate_models import NAME


def options() -> argparse.ArgumentParser:
    """A parser to be the parent of another."""
    parser = argparse.ArgumentParser(add_help=False)
    add = parser.add_argument
    add("--hardware", choices=HARDWARE, help="what Replicate runs it on; without it, what fits each is said")
    add(
        "--bandwidth",
        type=gigabits,
        metavar="GBIT",
        help="a second; default: of tools/pricing/prices.toml",
    )
    add("--published", type=Path, metavar="FILE", help="the published schema, in place of Replicate's API")
    return parser


def model(text: str) -> str:
    """`owner/name`, also of the image `r8.im/owner/name`."""
    name = text.removeprefix("r8.im/")
    if not NAME.fullmatch(name):
        raise argparse.ArgumentTypeError("write it as owner/name")
    return name


def gigabits(text: str) -> float:
    """A rate above 0."""
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError("a number of Gbit/s above 0")
    return rate


def project(given: argparse.Namespace, root: Path) -> Project:
    """What the options describe. Raises BadPrices where tools/pricing/prices.toml cannot be read."""
    disable_progress_bars()  # of the few small files that are asked for at the hub
    rate = given.bandwidth * 1e9 / 8 if given.bandwidth else prices.read().bytes_per_second
    card = card_of(given.hardware) if given.hardware else None
    return Project(root.resolve(), os.environ, given.model, card, rate, given.published)
