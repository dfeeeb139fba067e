"""Resolves the dependencies of pyproject.toml into the three files of pins; what is pinned already stays.

requirements.txt            what the image installs
scripts/packages-cpu.txt    what a machine without an NVIDIA GPU installs, for the tools and the tests too
scripts/packages-gpu.txt    what one with a GPU installs

Delete a line, or a file, to have its newest version. Needs uv 0.9 or later, and the network.
"""

import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from snb.settings import ROOT
from tools.command import Fault, command_line

FILES = {
    "scripts/packages-cpu.txt": ("cpu", "tools", "dev"),
    "scripts/packages-gpu.txt": ("gpu", "tools", "dev"),
    "requirements.txt": ("gpu",),
}
"""Each with its groups of pyproject.toml; the others start from the versions of the first."""
TARGET = ("--python-version=3.11", "--python-platform=x86_64-unknown-linux-gnu")
OPTIONS = (*TARGET, "--quiet", "--no-header", "--annotation-style=line")
HEADER = "# Written by scripts/pin-packages from pyproject.toml, where the reasons are.\n"
CURE = "uv is absent, or found no network or no such version; the pins of before stand, and still install"
LEFT_TO_TORCH = re.compile(r"^(?:nvidia|cuda|triton)\b(?!.*pyproject).*\n", re.MULTILINE)
"""torch pins these itself, others in each of its builds; but what pyproject names itself is pinned."""


def resolve(groups: Sequence[str], preferred: str) -> str:
    """The pins of some groups, with the versions of `preferred` where they serve.

    Raises:
        Fault: uv is not here, or could not resolve them.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pins.txt"
        file.write_text(preferred, encoding="utf-8")
        extras = [f"--extra={group}" for group in groups]
        command = ["uv", "pip", "compile", "pyproject.toml", *extras, *OPTIONS, f"--output-file={file}"]
        try:
            subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Fault(f"NOT_PINNED: {CURE}") from error
        return LEFT_TO_TORCH.sub("", file.read_text(encoding="utf-8"))


def main() -> int:
    command_line(__doc__).parse_args()
    preferred = (ROOT / next(iter(FILES))).read_text(encoding="utf-8")
    pins = {}
    for name, groups in FILES.items():
        pins[name] = resolve(groups, preferred)
        preferred = re.sub(r"(?m)^torch==.*\n", "", pins[name])
    for name, text in pins.items():
        (ROOT / name).write_text(HEADER + text.removeprefix(HEADER), encoding="utf-8")
    return 0
