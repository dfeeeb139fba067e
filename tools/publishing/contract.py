"""What `cog build` would take: cog.yaml, its packages, its settings, and the inputs of predict.py.

`cog` refuses an unknown key of cog.yaml itself, before it builds.
"""

import os
import re
from collections.abc import Iterator

from tools.machine import pins as read_pins
from tools.publishing.finding import Finding
from tools.publishing.project import Project
from tools.serving import schema

PIN = re.compile(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[0-9][A-Za-z0-9.]*")
CUDA = ("12.6", "12.8", "13.0")
PAIRS = {"2.9.0": CUDA, "2.9.1": CUDA, "2.10.0": CUDA, "2.11.0": ("12.6", "12.8", "12.9", "13.0")}
"""The newest versions of torch of which Cog has a base image, with their CUDA. Read in November 2026."""
OVERRIDE = "COG_OPENAPI_SCHEMA"


def config(project: Project) -> Iterator[Finding]:
    """Whether cog.yaml asks for a GPU, and an exact version of everything."""
    faults = [*_packages(project)]
    for key in ("gpu", "python_version", "sdk_version", "cuda"):
        if not project.config["build"].get(key):
            code = "CONFIG_GPU" if key == "gpu" else "CONFIG_UNPINNED"
            faults.append(Finding("error", code, f"cog.yaml: build.{key} is absent", "Write it into `build`"))
    yield from faults or [Finding("ok", "CONFIG", "every package of the image has a version")]


def settings(project: Project) -> Iterator[Finding]:
    """Whether the settings of the image can be read; no variable of a shell reaches it."""
    assert project.settings
    names = sorted(name for name in project.environment if name.startswith("SNB_"))
    yield Finding("ok", "SETTINGS", f"settings of the image: {', '.join(names) or 'the defaults'}")


def inputs(project: Project) -> Iterator[Finding]:
    """Whether Cog would derive the whole schema from predict.py."""
    count = len(derived(project)["components"]["schemas"]["Input"]["properties"])
    if os.environ.get(OVERRIDE):
        text = f"{OVERRIDE} is set: cog build would embed that file and not look at predict.py"
        yield Finding("error", "SCHEMA_OVERRIDDEN", text, f"Unset {OVERRIDE}")
    else:
        yield Finding("ok", "SCHEMA", f"the schema of {project.config['predict']} has {count} inputs")


def derived(project: Project) -> schema.Part:
    """The schema of the project.

    Raises:
        BadContract: `predict` is not declared as Cog can read it.
        BadConfig: cog.yaml does not say where it is.
    """
    file, _, class_name = str(project.config.get("predict", "")).partition(":")
    try:
        source = (project.root / file).read_text(encoding="utf-8")
        return schema.derive(source, class_name, str(project.config["build"].get("sdk_version")))
    except (OSError, SyntaxError, UnicodeDecodeError) as failure:
        text = f"{file or '`predict` of cog.yaml'} cannot be read as Python: {type(failure).__name__}"
        raise schema.BadContract(text, 'Write predict: "FILE:CLASS" into cog.yaml') from failure


def _packages(project: Project) -> Iterator[Finding]:
    """Requirements without an exact version, and a torch that Cog has no base image of."""
    build = project.config["build"]
    file = project.root / str(build.get("python_requirements", ""))
    pins = read_pins(file) if file.is_file() else []
    loose = [pin for pin in pins if not PIN.fullmatch(pin)]
    if loose or not pins:
        # Such a line may be an address with a password in it, so it is not repeated.
        text = f"`python_requirements` of cog.yaml: {len(loose)} of {len(pins)} lines have no exact version"
        cure = "Name requirements.txt there; scripts/pin-packages writes it"
        yield Finding("error", "CONFIG_UNPINNED", text, cure)
    torch = next((pin.partition("==")[2] for pin in pins if pin.startswith("torch==")), "")
    if str(build.get("cuda")) not in PAIRS.get(torch, ()):
        text = f"Cog has no base image of torch {torch or '(not pinned)'} with CUDA {build.get('cuda')}"
        cure = f"Building and booting take longer; it has torch {', '.join(PAIRS)} with CUDA 12.6, 12.8, 13.0"
        yield Finding("warning", "CONFIG_TORCH_CUDA", text, cure)
