"""What `cog build` would take: cog.yaml, its settings, and the inputs of predict.py."""

import re
from collections.abc import Iterator

from tools.publishing.finding import Finding
from tools.publishing.project import PIN, Project

KEYS = {"build", "concurrency", "environment", "image", "model", "predict", "run", "train", "weights"}
BUILD = {
    *("cuda", "cudnn", "gpu", "pre_install", "python_packages", "python_requirements", "python_version"),
    *("run", "sdk_version", "system_packages"),
}
"""What may stand in cog.yaml and in its `build`: pkg/config/data/config_schema_v1.0.json of Cog 0.22.0, the
newest release whose source is tagged."""
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*")
DEFAULTS = 'gpu: true, python_version: "3.11", cuda: "12.8", sdk_version: "0.23.1"'


def config(project: Project) -> Iterator[Finding]:
    """Whether cog.yaml has nothing that Cog refuses, asks for a GPU, and names every version exactly."""
    build, variables = project.config["build"], project.config.get("environment") or []
    loose = [pin for pin in project.pins if not PIN.fullmatch(pin)]
    unknown = {*project.config.keys() - KEYS, *(f"build.{key}" for key in build.keys() - BUILD)}
    if not isinstance(variables, list) or not all(VARIABLE.fullmatch(str(line)) for line in variables):
        unknown |= {"`environment` but as a list of NAME=value"}
    if unknown:
        text = f"cog.yaml: Cog knows no {', '.join(sorted(map(str, unknown)))}, and builds nothing"
        yield Finding(
            "error", "CONFIG_UNKNOWN", text, f"Write one that it knows: {', '.join(sorted(KEYS | BUILD))}"
        )
    elif faults := [key for key in ("gpu", "python_version", "sdk_version", "cuda") if not build.get(key)]:
        text = f"cog.yaml: {', '.join(f'build.{key}' for key in faults)} is absent"
        yield Finding("error", "CONFIG_UNPINNED", text, f"Write into `build`, of these: {DEFAULTS}")
    elif loose or not project.pins:
        # Such a line may be an address with a password in it, so it is not repeated.
        text = f"`python_requirements` of cog.yaml: {len(loose)} of {len(project.pins)} lines have no version"
        cure = "Name requirements.txt there, and run scripts/pin-packages, which writes it"
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
