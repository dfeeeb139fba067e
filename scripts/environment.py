"""Makes the virtual environment and runs a script in it; standard library only, for it runs first.

`enter()` is the first line of every Python script here. It returns at once where the running interpreter
already has every version that the script needs (the image, or `.venv`); else it builds `.venv` and runs the
script again in it. Run as a program it makes the environment for a shell script.

Set IMAGE_PINS=1 to install the image's own torch on a machine without a GPU. Set AS_IS=1 on one without a
registry: nothing is installed, and the running interpreter's packages are taken, whatever their versions.
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


def differing(dev: bool) -> list[str]:
    """Each pin that the running interpreter does not satisfy, with what it has instead."""
    faults = []
    for pin in pins(dev):
        name, version = pin.split("==")
        present = installed(name)
        if present.split("+")[0] != version:
            faults.append(f"{name} {present or 'absent'}, pinned {version}")
    return faults


def installed(name: str) -> str:
    """The version of a package, whatever extras are wanted of it; empty where it is absent."""
    try:
        return metadata.version(name.split("[")[0])
    except metadata.PackageNotFoundError:
        return ""


def build() -> None:
    """Creates `.venv` if it is absent and installs what differs from the pins. Output goes to stderr."""
    if not PYTHON.exists():
        python = shutil.which("python3.11") or sys.executable
        subprocess.run([python, "-m", "venv", str(VENV)], check=True, stdout=sys.stderr)
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins(dev=True)]
    print("Installing the pinned packages into .venv …", file=sys.stderr)
    if subprocess.run(command, stdout=sys.stderr).returncode:
        sys.exit("pip wrote the reason above; AS_IS=1 in front runs with the packages that are installed")


def enter(dev: bool = False) -> None:
    """Runs the calling script with the project importable and every pinned package; `dev` adds the tests'."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    faults = differing(dev)
    if faults and os.environ.get("AS_IS"):
        print(f"AS_IS: {'; '.join(faults)}", file=sys.stderr)
    if not faults or os.environ.get("AS_IS"):
        return
    if Path(sys.prefix) == VENV or not PYTHON.exists():
        build()
    if Path(sys.prefix) == VENV and (faults := differing(dev)):
        sys.exit(f"pip has installed what is pinned, and yet: {'; '.join(faults)}")
    os.execv(PYTHON, [str(PYTHON), *sys.argv])


if __name__ == "__main__":
    enter(dev=True)
