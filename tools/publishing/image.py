"""Builds the image for every host but Replicate, with prepared weights, and a second one that asks for a key.

scripts/image ghcr.io/owner/spinoza:2026-11

IMAGE starts Cog's server, as root. IMAGE-porte starts the front, which checks the key, as user 1000 on port
7860, for hosts whose address is public. The disk space and upload time needed are shown first, and what a
registry would refuse is not built. --without-weights is for an image that everybody may read: its boots
download what SNB_PREPARED names. Both names go to stdout, all else to stderr; exits with 1 if none was built.
"""

import os
import subprocess
import sys
from pathlib import Path

from snb.errors import BadSetting, SNBError, WeightsMissing
from snb.settings import ROOT
from snb.weights import prepared
from tools.command import command_line, say
from tools.publishing import doctor, installed, layers, secret_scan
from tools.publishing.project import Project

DOOR = Path("deploy", "huggingface")
CHECKS: tuple[doctor.Check, ...] = (*doctor.CODE, installed.programs, secret_scan.check)


class NotBuilt(SNBError):
    """Cog or Docker has failed."""

    code = "NOT_BUILT"


def main() -> int:
    parser = command_line(__doc__)
    parser.add_argument("image", help="what a registry calls it: HOST/OWNER/NAME:TAG")
    parser.add_argument("--without-weights", action="store_true", help="the code alone")
    asked = parser.parse_args()
    project = Project(ROOT, bare=True)
    found = None if asked.without_weights else prepared.find(project.settings, download=False)
    if found is None and not asked.without_weights:
        folder = project.settings.weights_dir / prepared.FOLDER
        text = f"an image carries prepared weights, and none are in {folder}, where cog.yaml's settings look"
        cure = f"Run scripts/prepare-weights --precision nf4 --output {folder} (SNB_WEIGHTS_DIR of this shell"
        raise WeightsMissing(text, f"{cure} does not count), or take --without-weights")
    own = project.root / "weights" / prepared.FOLDER
    if found and project.settings.prepared not in ("auto", str(own)):
        other = project.environment["SNB_PREPARED"]
        text = f"cog.yaml sets SNB_PREPARED={other}, so no boot would take the weights in the image"
        raise BadSetting(text, "Take the line out to send these, or take --without-weights")
    weights = found.folder if found else None
    sizes = layers.of_weights(weights) if weights else []
    checks = (*CHECKS, lambda _: layers.build(sizes), lambda _: layers.registry(sizes))
    if {"error", "not checked"} & doctor.report(project, say, checks):
        say("Nothing was built.")
        return 1
    build(project, asked.image, weights)
    print(f"{asked.image}\n{asked.image}-porte")
    return 0


def build(project: Project, image: str, weights: Path | None) -> None:
    """Builds IMAGE and IMAGE-porte; from the code alone if `weights` is None. Raises NotBuilt."""
    code, door = f"{image}-code", project.root / DOOR
    if status := project.context.cog("build", "--tag", code):
        raise NotBuilt(f"cog build ended with {status}", "Cure what its last lines name")
    target = [] if weights else ["--target", "code"]
    _docker(door.parent, image, "--build-arg", f"CODE={code}", *target, str(weights or door))
    _docker(door, f"{image}-porte", "--build-arg", f"IMAGE={image}", str(door))


def _docker(folder: Path, image: str, *words: str) -> None:
    command = ["docker", "build", "--file", str(folder / "Dockerfile"), "--tag", image, *words]
    say(" ".join(command))
    engine = {**os.environ, "DOCKER_BUILDKIT": "1"}  # without it Docker knows no --link and no --chmod
    if status := subprocess.run(command, env=engine, stdout=sys.stderr).returncode:
        raise NotBuilt(f"docker build ended with {status}", "Cure what its last lines name")
