"""Makes the virtual environment and runs a script in it; standard library only, for it runs first.

`enter()` is the first line of every Python script here. It returns at once where the running interpreter
already has every version that the script needs (the image, or `.venv`); else it builds `.venv` and runs the
script again in it. From then on an error that a person can act on is one line and no traceback, and Ctrl-C,
SIGTERM and SIGHUP end a script through its `with` and `finally`. Run as a program it makes the environment
for a shell script.

Set IMAGE_PINS=1 to install the image's own torch on a machine without a GPU. Set AS_IS=1 on one without a
registry: nothing is installed, and the running interpreter's packages are taken, whatever their versions.
"""

import argparse
import atexit
import os
import shutil
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import TracebackType

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parent
# The modules of a chore are in a folder of their own; everything here knows them by their plain names.
sys.path += [str(folder) for folder in sorted(SCRIPTS.glob("[a-z]*/"))]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
BROUGHT_IN = "# What these bring in, written by scripts/pin-packages."
"""The line of requirements.txt between the packages that were chosen and those that these need."""


class Fault(Exception):
    """What a person can act on; its text is all that is shown."""


def has_gpu() -> bool:
    """Whether an NVIDIA driver is present; decides which torch to install, so torch cannot be asked."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia").exists()


def pins(dev: bool, chosen: bool = False) -> list[str]:
    """Every `name==version` for this machine: the image's, with torch for the CPU where there is no GPU.

    Args:
        dev: adds what the tests need.
        chosen: leaves out what the image's packages bring in.
    """
    runtime = read(ROOT / "requirements.txt", chosen)
    if not (has_gpu() or os.environ.get("IMAGE_PINS")):
        constraint = read(SCRIPTS / "constraints-cpu.txt")
        runtime = [pin for pin in runtime if not pin.startswith("torch==")] + constraint
    return runtime + (read(SCRIPTS / "requirements-dev.txt") if dev else [])


def read(requirements: Path, chosen: bool = False) -> list[str]:
    """The pins of a requirements file, without their reasons; or those above BROUGHT_IN."""
    text = requirements.read_text(encoding="utf-8")
    if chosen:
        text = text.split(BROUGHT_IN)[0]
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def differing(pins: list[str]) -> list[str]:
    """Each pin that the running interpreter does not satisfy, with what it has instead."""
    faults = []
    for pin in pins:
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


def build(wanted: list[str]) -> None:
    """Creates `.venv` if it is absent and installs what differs from the pins. Output goes to stderr."""
    if not PYTHON.exists():
        python = shutil.which("python3.11") or sys.executable
        if subprocess.run([python, "-m", "venv", str(VENV)], stdout=sys.stderr).returncode:
            sys.exit("venv wrote the reason above; on Debian and Ubuntu, install python3-venv")
    command = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
    print("Installing the pinned packages into .venv …", file=sys.stderr)
    if subprocess.run(command, stdout=sys.stderr).returncode:
        sys.exit("pip wrote the reason above; AS_IS=1 in front runs with the packages that are installed")


def enter(dev: bool = False, chosen: bool = False) -> None:
    """Runs the calling script with the project importable and every pinned package, as `pins` has them."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    handle_errors()
    faults = differing(pins(dev, chosen))
    if faults and os.environ.get("AS_IS"):
        print(f"AS_IS: {'; '.join(faults)}", file=sys.stderr)
    if not faults or os.environ.get("AS_IS"):
        return
    if Path(sys.prefix) == VENV or not PYTHON.exists():
        if {"-h", "--help"} & {*sys.argv[1:]}:
            print(sys.modules["__main__"].__doc__, "The options are listed once .venv is there.", sep="\n")
            sys.exit()
        build(pins(True, chosen))
    if Path(sys.prefix) == VENV and (faults := differing(pins(dev, chosen))):
        sys.exit(f"pip has installed what is pinned, and yet: {'; '.join(faults)}")
    os.execv(PYTHON, [str(PYTHON), *sys.argv])


def handle_errors() -> None:
    """Lets Ctrl-C, `kill` and a closed terminal end a script through its `finally`, and `show` its errors."""
    sys.excepthook = show
    atexit.register(flush)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """In place of a traceback: nothing for Ctrl-C (130) and `| head`, and one line for what is no bug."""
    if isinstance(error, (KeyboardInterrupt, BrokenPipeError)):
        sys.exit(130 if isinstance(error, KeyboardInterrupt) else 1)
    from snb.errors import SNBError

    if isinstance(error, (Fault, SNBError, OSError, ModuleNotFoundError, subprocess.CalledProcessError)):
        print(error, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def flush() -> None:
    """A reader that has seen enough, as `| head` has, is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    enter(dev=True)
