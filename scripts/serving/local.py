"""Which weights this machine serves: the real ones if they are here with a GPU, else the stand-in."""

import os
import subprocess
import sys

import environment

from snb import prepared, weights
from snb.errors import WeightsMissing
from snb.settings import ROOT, Settings

STANDIN = ROOT / "weights" / "standin"


def settings() -> dict[str, str]:
    """The environment for a server here, on top of this process's own; builds the stand-in if it is wanted.

    Whoever sets SNB_BASE_MODEL has chosen already.
    """
    if os.environ.get("SNB_BASE_MODEL"):
        return {}
    if environment.has_gpu() and present(Settings.from_environment()):
        return {}
    build_standin()
    standin = {"SNB_BASE_MODEL": str(STANDIN / "base"), "SNB_ADAPTER": str(STANDIN / "adapter")}
    # Prepared weights that lie in weights/ are the philosopher's; whoever names others has chosen.
    return {"SNB_PREPARED": "none", **standin} if "SNB_PREPARED" not in os.environ else standin


def build_standin() -> None:
    """Builds what is not there of the stand-in."""
    subprocess.run([sys.executable, str(ROOT / "scripts" / "make-standin")], check=True, stdout=sys.stderr)


def present(settings: Settings) -> bool:
    """Whether prepared weights, or base and adapter, are on this machine and whole."""
    try:
        if prepared.find(settings, download=False):
            return True
        for source in weights.sources(settings):
            weights.check(source, settings)
    except WeightsMissing:
        return False
    return True
