"""What requirements.txt holds: packages chosen by hand, and after MARK all that these bring in, as tested."""

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import environment
from packaging.requirements import Requirement

FILE = environment.ROOT / "requirements.txt"
MARK = environment.BROUGHT_IN
IMAGE = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.11.0",
    "python_version": "3.11",
    "sys_platform": "linux",
}
"""The image, whatever machine this runs on."""


def written(file: Path = FILE) -> str:
    """The file as it should be: what stands above MARK, and below it what is installed here."""
    above = file.read_text(encoding="utf-8").split(MARK)[0].rstrip()
    names = [normal(Requirement(line).name) for line in environment.read(file, chosen=True)]
    below = "\n".join(f"{name}=={version(name)}" for name in sorted(closure(names) - set(names)))
    return f"{above}\n\n{MARK}\n# torch itself pins NVIDIA's libraries and triton.\n{below}\n"


def closure(names: list[str]) -> set[str]:
    """These packages and all that they need in the image."""
    found: set[str] = set()
    open_ = list(names)
    while open_:
        name = open_.pop()
        if name not in found:
            found.add(name)
            open_.extend(needs(name))
    return found


def needs(name: str) -> Iterator[str]:
    """What an installed package needs in the image.

    What torch pins exactly is left to it: other libraries of NVIDIA's in each of its builds, and none in the
    one for the CPU.
    """
    for line in metadata.requires(name) or []:
        needed = Requirement(line)
        if needed.marker and not needed.marker.evaluate({**IMAGE, "extra": ""}):
            continue
        if name != "torch" or all(specifier.operator != "==" for specifier in needed.specifier):
            yield normal(needed.name)


def version(name: str) -> str:
    """The installed version, without the name of a build."""
    return metadata.version(name).split("+")[0]


def normal(name: str) -> str:
    """The one spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()
