"""Makes the virtual environment and runs a command of `tools/` in it; standard library only: it runs first.

Every Python script here is a call of `run`. If the running interpreter has every pinned package and this
project, the command runs at once; else `.venv` is built or brought up to date, with uv if it is installed and
otherwise with pip, and the script is restarted in it. Run as a program, it only makes the environment.

Set AS_IS=1 on a machine without a registry: nothing is installed, and the running interpreter's packages are
used, whatever their versions.
"""

import ast
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the project may not be installed yet

from tools.machine import has_gpu, installed, offline, pins

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
PROJECT = "spinoza-niveau-b"


def wanted() -> dict[str, str]:
    """Each package and its pinned version: the image's and the tools', and without a GPU those for a CPU."""
    files = ["requirements.txt", "scripts/packages.txt"]
    if not has_gpu():
        files.append("scripts/packages-cpu.txt")
    return dict(pin.split("==") for file in files for pin in pins(ROOT / file))


def differing() -> list[str]:
    """Each pin that the running interpreter does not satisfy, with the version it has instead."""
    faults = []
    for name, version in wanted().items():
        present = installed(name)
        if present.split("+")[0] != version:
            faults.append(f"{name} {present or 'absent'}, pinned {version}")
    return faults if installed(PROJECT) else [*faults, f"{PROJECT} is not installed"]


def build() -> None:
    """Creates `.venv` if it is absent and installs what differs from the pins. Output goes to stderr."""
    if not PYTHON.exists():
        python = shutil.which("python3.11") or sys.executable
        if subprocess.run([python, "-m", "venv", str(VENV)], stdout=sys.stderr).returncode:
            sys.exit("venv wrote the reason above; on Debian and Ubuntu, install python3-venv")
    print("Installing the pinned packages into .venv …", file=sys.stderr)
    install(*(f"{name}=={version}" for name, version in wanted().items()))
    install("--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def install(*what: str) -> None:
    """Installs into `.venv`; ends the script if that fails."""
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check"]
    if uv := shutil.which("uv"):
        backend = "auto" if has_gpu() else "cpu"
        command = [uv, "pip", "install", "--python", str(PYTHON), "--torch-backend", backend]
    pipe = subprocess.PIPE
    done = subprocess.run([*command, "--quiet", *what], stdout=pipe, stderr=subprocess.STDOUT, text=True)
    still = "AS_IS=1 in front still runs whatever the packages that are here can do"
    if done.returncode and offline():
        sys.exit(f"NO_NETWORK: packages are absent, and nothing can be fetched; {still}")
    print(done.stdout, end="", file=sys.stderr)
    if done.returncode:
        sys.exit(f"NOT_INSTALLED: the reason is above; {still}")


def enter() -> None:
    """Returns if this interpreter has every pinned package, or with AS_IS; else restarts in `.venv`."""
    faults = differing()
    if not faults:
        return
    if os.environ.get("AS_IS"):
        print(f"AS_IS: {'; '.join(faults)}", file=sys.stderr)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return
    if Path(sys.prefix) == VENV or not PYTHON.exists():
        build()
    os.execv(PYTHON, [str(PYTHON), *sys.argv])


def run(module: str) -> None:
    """Runs a command: the `main()` of a module of `tools`."""
    file = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    incomplete = Path(sys.prefix) == VENV or not PYTHON.exists()
    if {"-h", "--help"} & {*sys.argv[1:]} and incomplete and differing():
        print(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))))
        sys.exit(print("The options are listed once .venv is whole; any call without --help makes it so."))
    enter()
    sys.exit(import_module("tools.command").run(module))


if __name__ == "__main__":
    enter()
