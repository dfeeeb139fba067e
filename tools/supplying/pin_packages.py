"""Resolves the dependencies of pyproject.toml into the three files of pins; existing pins are kept.

requirements.txt            what the image installs
scripts/packages.txt        what the tools and the tests need besides
scripts/packages-cpu.txt    what a machine without an NVIDIA GPU installs instead

Delete a line to get the newest version of that package. Needs uv 0.9 or later, and the network.
"""

import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from snb.settings import ROOT
from tools.command import Fault, command_line

FILES = {
    "requirements.txt": ("gpu",),
    "scripts/packages.txt": ("gpu", "tools", "dev"),
    "scripts/packages-cpu.txt": ("cpu", "tools", "dev"),
}
"""Each file with its groups in pyproject.toml; a pin that an earlier file has is left out."""
TARGET = ("--python-version=3.11", "--python-platform=x86_64-unknown-linux-gnu")
OPTIONS = (*TARGET, "--quiet", "--no-header", "--annotation-style=line")
HEADER = "# Written by scripts/pin-packages from pyproject.toml, where the reasons are.\n"
CURE = "uv is absent, or found no network or no such version; the pins of before stand, and still install"
LEFT_TO_TORCH = re.compile(r"^(?:nvidia|cuda|triton)\b(?!.*pyproject).*\n", re.MULTILINE)
"""torch pins these itself, differently in each of its builds; those that pyproject.toml names stay pinned."""


def resolve(groups: Sequence[str], preferred: str) -> str:
    """The pins of some groups, with the versions of `preferred` where they still fit.

    Raises:
        Fault: uv is not installed, or could not resolve them.
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
    preferred = "".join((ROOT / name).read_text(encoding="utf-8") for name in FILES)
    resolved = {}
    for name, groups in reversed(FILES.items()):  # the largest first: what fits all fits the image
        resolved[name] = preferred = resolve(groups, preferred)
    written = set[str]()
    for name in FILES:
        lines = {line.partition(" ")[0]: line for line in resolved[name].splitlines(keepends=True)}
        new = "".join(line for pin, line in lines.items() if pin not in written)
        (ROOT / name).write_text(HEADER + new, encoding="utf-8")
        written |= lines.keys()
    return 0
