"""What `cog build` would take: cog.yaml, its settings, and the inputs of predict.py."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from tools.publishing.finding import Finding
from tools.publishing.project import PIN, Project

# What may stand in cog.yaml and in its `build`: pkg/config/data/config_schema_v1.0.json, validate.go and
# env.go of Cog 0.22.0, the newest release whose source is tagged.
KINDS = {"text": (str, int, float), "a list": list, "a table": dict, "true or false": bool}
KEYS = {
    **dict.fromkeys(("image", "model", "predict", "run", "train"), "text"),
    **dict.fromkeys(("build", "concurrency"), "a table"),
    **dict.fromkeys(("environment", "weights"), "a list"),
}
BUILD = {
    **dict.fromkeys(("cuda", "cudnn", "python_requirements", "python_version", "sdk_version"), "text"),
    **dict.fromkeys(("pre_install", "python_packages", "run", "system_packages"), "a list"),
    "gpu": "true or false",
}
RESERVED = (
    *("PATH", "LD_LIBRARY_PATH", "LIBRARY_PATH", "PYTHONPATH", "PYTHONUNBUFFERED", "VIRTUAL_ENV"),
    *("CUDA_*", "HF_ENDPOINT", "HF_HUB_ENABLE_HF_TRANSFER", "KUBERNETES_*", "NV_*", "NVIDIA_*", "PGET_*"),
    *("R8_*", "REPLICATE_*"),
)
"""Variables that Cog lets no `environment:` set."""
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*")
DEFAULTS = 'gpu: true, python_version: "3.11", cuda: "12.8", sdk_version: "0.23.1"'


def config(project: Project) -> Iterator[Finding]:
    """Whether cog.yaml has nothing that Cog refuses, asks for a GPU, and names every version exactly."""
    build = project.config["build"]
    loose = [pin for pin in project.pins if not PIN.fullmatch(pin)]
    unknown = {*project.config.keys() - KEYS, *(f"build.{key}" for key in build.keys() - BUILD)}
    if unknown:
        text = f"cog.yaml: Cog knows no {', '.join(sorted(map(str, unknown)))}, and builds nothing"
        yield Finding(
            "error", "CONFIG_UNKNOWN", text, f"Write one that it knows: {', '.join(sorted(KEYS | BUILD))}"
        )
    elif refused := sorted({*_refused(project.config)}):
        text = f"cog.yaml: Cog builds nothing, for {'; '.join(refused)}"
        cure = "Write it as https://cog.run/yaml has it, or run git checkout -- cog.yaml"
        yield Finding("error", "CONFIG_REFUSED", text, cure)
    elif faults := [key for key in ("gpu", "python_version", "sdk_version", "cuda") if not build.get(key)]:
        text = f"cog.yaml: {', '.join(f'build.{key}' for key in faults)} is absent or false"
        yield Finding("error", "CONFIG_UNPINNED", text, f"Write into `build`, of these: {DEFAULTS}")
    elif loose or not project.pins:
        # Such a line may be an address with a password in it, so it is not repeated.
        count = f"{len(loose)} of {len(project.pins)} lines"
        text = f"`python_requirements` of cog.yaml: {count} are not NAME==VERSION"
        cure = "Name requirements.txt there, and run scripts/pin-packages, which writes it"
        yield Finding("error", "CONFIG_UNPINNED", text, cure)
    else:
        yield Finding("ok", "CONFIG", "every package of the image has a version")


def _refused(config: dict[str, Any]) -> Iterator[str]:
    """What Cog's parser and its checks of single entries refuse."""
    for table, form, name in ((config, KEYS, ""), (config["build"], BUILD, "build.")):
        for key, value in table.items():
            if value is not None and not isinstance(value, KINDS[form[key]]):  # type: ignore[arg-type]
                yield f"{name}{key} is not {form[key]}"
        for one, other in (
            ("run", "predict"),
            ("image", "model"),
            ("python_packages", "python_requirements"),
        ):
            if table.get(one) and table.get(other):
                yield f"{name}{one} and {name}{other} are both there"
    limit = config.get("concurrency")
    if isinstance(limit, dict) and not (isinstance(limit.get("max"), int) and limit["max"] > 0):
        yield "concurrency.max is not a whole number from 1 on"
    yield from _commands(config["build"].get("run"))
    yield from _variables(config.get("environment"))


def _commands(lines: Any) -> Iterator[str]:
    for line in lines if isinstance(lines, list) else []:
        if not isinstance(line, str) and not (isinstance(line, dict) and line.get("command")):
            yield "an entry of build.run is neither text nor a table with `command`"


def _variables(lines: Any) -> Iterator[str]:
    lines = lines if isinstance(lines, list) else []
    names = [str(line).partition("=")[0] for line in lines]
    if not all(isinstance(line, str) and VARIABLE.fullmatch(line) for line in lines):
        yield "an entry of environment is not NAME=value"  # a value may be a secret, so no line is repeated
    for name in names:
        if names.count(name) > 1:
            yield f"environment has {name} twice"
        if any(fnmatchcase(name, form) for form in RESERVED):
            yield f"environment sets {name}, which Cog keeps for itself"


def settings(project: Project) -> Iterator[Finding]:
    """Whether the settings of the image can be read; no variable of a shell reaches it."""
    assert project.settings
    names = sorted(name for name in project.environment if name.startswith("SNB_"))
    yield Finding("ok", "SETTINGS", f"settings of the image: {', '.join(names) or 'the defaults'}")


def inputs(project: Project) -> Iterator[Finding]:
    """Whether Cog would derive the whole schema from predict.py."""
    count = len(project.schema["components"]["schemas"]["Input"]["properties"])
    yield Finding("ok", "SCHEMA", f"the schema of {project.config['predict']} has {count} inputs")
