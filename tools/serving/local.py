"""Which weights this machine serves: the real ones if it has them and a GPU, else the stand-in."""

import os
import subprocess
import sys
from pathlib import Path

from snb.settings import ROOT, Settings
from tools.machine import has_gpu

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spinoza-niveau-b"
STANDIN = Path(os.environ.get("SNB_STANDIN") or CACHE / "standin")
"""Outside the repository, so that it is trained once per machine; scripts/make-standin fills it."""


def settings(real: bool = True) -> dict[str, str]:
    """The environment for a server here, on top of this process's own; builds the stand-in if it is needed.

    Args:
        real: whether to serve the philosophers' weights where that is possible; if False, only weights that
            SNB_BASE_MODEL names replace the stand-in.

    Raises:
        BadSetting: the environment is not what a server would boot with.
    """
    if not standin_reason() and (real or os.environ.get("SNB_BASE_MODEL")):
        return {}
    build_standin()
    standin = {"SNB_BASE_MODEL": str(STANDIN / "base"), "SNB_ADAPTER": str(STANDIN / "adapter")}
    # Prepared weights in weights/ are the philosopher's, so they are not used unless SNB_PREPARED says so.
    return {"SNB_PREPARED": "none", **standin} if "SNB_PREPARED" not in os.environ else standin


def standin_reason() -> str:
    """Why the stand-in is served here; empty if it is not, as when SNB_BASE_MODEL names another model."""
    chosen = Settings.from_environment()
    if os.environ.get("SNB_BASE_MODEL") or (has_gpu() and present(chosen)):
        return ""
    return f"{chosen.weights_dir} has no weights" if has_gpu() else "there is no GPU here"


def build_standin() -> None:
    """Builds the stand-in unless it is there. Raises SystemExit if that fails, with the reason printed."""
    if status := subprocess.run([ROOT / "scripts" / "make-standin"], stdout=sys.stderr).returncode:
        raise SystemExit(status)


def present(settings: Settings) -> bool:
    """Whether prepared weights, or base and adapter, are on this machine; only a boot checks them."""
    from snb.weights import fetch, prepared  # imports torch, for seconds that other callers are spared

    found = prepared.named(settings)
    wanted = [found] if found else fetch.sources(settings)
    return all(source.folder or fetch.stored(source, settings.weights_dir) for source in wanted)
