"""What `cog build` would take: cog.yaml, its packages, its settings, and the inputs of predict.py.

Cog itself refuses an unknown key, and warns of a torch that it has no base image of, before it builds.
"""

import re
from collections.abc import Iterator

from tools.machine import pins as read_pins
from tools.publishing.finding import Finding
from tools.publishing.project import Project

PIN = re.compile(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[0-9][A-Za-z0-9.]*")


def config(project: Project) -> Iterator[Finding]:
    """Whether cog.yaml asks for a GPU, and an exact version of everything."""
    build = project.config["build"]
    file = project.root / str(build.get("python_requirements", ""))
    pins = read_pins(file) if file.is_file() else []
    loose = [pin for pin in pins if not PIN.fullmatch(pin)]
    faults = [key for key in ("gpu", "python_version", "sdk_version", "cuda") if not build.get(key)]
    if faults:
        text = f"cog.yaml: {', '.join(f'build.{key}' for key in faults)} is absent"
        yield Finding("error", "CONFIG_UNPINNED", text, "Write it into `build`")
    elif loose or not pins:
        # Such a line may be an address with a password in it, so it is not repeated.
        text = f"`python_requirements` of cog.yaml: {len(loose)} of {len(pins)} lines have no exact version"
        cure = "Name requirements.txt there; scripts/pin-packages writes it"
        yield Finding("error", "CONFIG_UNPINNED", text, cure)
    else:
        yield Finding("ok", "CONFIG", "every package of the image has a version")


def settings(project: Project) -> Iterator[Finding]:
    """Whether the settings of the image can be read; no variable of a shell reaches it."""
    assert project.settings
    names = sorted(name for name in project.environment if name.startswith("SNB_"))
    yield Finding("ok", "SETTINGS", f"settings of the image: {', '.join(names) or 'the defaults'}")


def inputs(project: Project) -> Iterator[Finding]:
    """Whether Cog would derive the whole schema from predict.py."""
    count = len(project.schema["components"]["schemas"]["Input"]["properties"])
    yield Finding("ok", "SCHEMA", f"the schema of {project.config['predict']} has {count} inputs")
