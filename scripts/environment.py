"""Makes the virtual environment and runs a script in it; standard library only, for it runs first.

`enter()` is the first line of every Python script here. It returns at once where the running interpreter
already has every version that the script needs (the image, or `.venv`); else it builds `.venv` and runs the
script again in it. Run as a program it makes the environment for a shell script.

Set IMAGE_PINS=1 to install the image's own torch on a machine without a GPU.
"""

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parent
# The modules of a chore are in a folder of their own; everything here knows them by their plain names.
sys.path += [str(folder) for folder in sorted(SCRIPTS.glob("[a-z]*/"))]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
BROUGHT_IN = "# What these bring in, written by scripts/pin-packages."
"""The line of requirements.txt between the packages that were chosen and those that these need."""


def has_gpu() -> bool:
    """Whether an NVIDIA driver is present; decides which torch to install, so torch cannot be asked."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia").exists()


def pins(dev: bool) -> list[str]:
    """Every `name==version` for this machine: the image's, with torch for the CPU where there is no GPU."""
    runtime = read(ROOT / "requirements.txt")
    if not (has_gpu() or os.environ.get("IMAGE_PINS")):
        constraint = read(SCRIPTS / "constraints-cpu.txt")
        runtime = [pin for pin in runtime if not pin.startswith("torch==")] + constraint
    return runtime + (read(SCRIPTS / "requirements-dev.txt") if dev else [])


def read(requirements: Path) -> list[str]:
    """The pins of a requirements file, without their reasons."""
    lines = (line.split("#")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def satisfied(dev: bool) -> bool:
    """Whether the running interpreter has every pinned version."""
    for pin in pins(dev):
        name, version = pin.split("==")
        try:
            if metadata.version(name).split("+")[0] != version:
                return False
        except metadata.PackageNotFoundError:
            return False
    return True


def build() -> None:
    """Creates `.venv` if it is absent and installs what differs from the pins. Output goes to stderr."""
    if not PYTHON.exists():
        python = shutil.which("python3.11") or sys.executable
        subprocess.run([python, "-m", "venv", str(VENV)], check=True, stdout=sys.stderr)
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins(dev=True)]
    print("Installing the pinned packages into .venv …", file=sys.stderr)
    subprocess.run(command, check=True, stdout=sys.stderr)


def enter(dev: bool = False) -> None:
    """Runs the calling script with the project importable and every pinned package; `dev` adds the tests'."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    if satisfied(dev):
        return
    if Path(sys.prefix) == VENV or not PYTHON.exists():
        build()
    os.execv(PYTHON, [str(PYTHON), *sys.argv])


if __name__ == "__main__":
    enter(dev=True)
