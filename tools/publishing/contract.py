"""What `cog build` would take, and what its server would call: cog.yaml, its settings, and predict.py."""

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from math import inf
from typing import Any

from tools.publishing import sources
from tools.publishing.finding import Finding
from tools.publishing.project import PIN, Project
from tools.publishing.published import forms

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
PAIRS = (("run", "predict"), ("image", "model"), ("python_packages", "python_requirements"))
"""Keys of which Cog takes one."""
AGAINST = {
    "SNB_DEVICE=cpu": "the model would leave the GPU idle, and is too slow without it",
    "PORT=*": "Cog's server would listen where nobody asks: every host asks the port it knows",
    "COG_MAX_CONCURRENCY=*": "it overrules @concurrent in predict.py",
}
"""Variables that make the image another thing than this package is, and why."""
METHODS = {
    "setup": "Cog would load no model, and every question would fail",
    "healthcheck": "a server whose engine is dead would be called ready",
}
"""What Cog calls by its name, and leaves out without a word where there is none."""


def config(project: Project) -> Iterator[Finding]:
    """Whether cog.yaml has nothing that Cog refuses, asks for a GPU, and names every version exactly."""
    build = project.config["build"]
    loose = [pin for pin in project.pins if not PIN.fullmatch(pin)]
    unknown = {*project.config.keys() - KEYS, *(f"build.{key}" for key in build.keys() - BUILD)}
    if unknown:
        text = f"cog.yaml: Cog knows no {', '.join(sorted(map(str, unknown)))}, and builds nothing"
        cure = f"Write one that it knows: {', '.join(sorted(KEYS | BUILD))}"
        yield Finding("error", "CONFIG_UNKNOWN", text, cure)
    elif refused := sorted({*_refused(project.config)}):
        text = f"cog.yaml: Cog builds nothing, for {'; '.join(refused)}"
        cure = "Write it as https://cog.run/yaml has it, or run git checkout -- cog.yaml"
        yield Finding("error", "CONFIG_REFUSED", text, cure)
    elif faults := [key for key in ("gpu", "python_version", "sdk_version", "cuda") if not build.get(key)]:
        text = f"cog.yaml: {', '.join(f'build.{key}' for key in faults)} is absent or false"
        yield Finding("error", "CONFIG_UNPINNED", text, f"Write into `build`, of these: {DEFAULTS}")
    elif loose or not project.pins:
        # Such a line may be an address with a password in it, so it is not repeated.
        text = f"{len(loose)} of {len(project.pins)} lines of `python_requirements` are not NAME==VERSION"
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
        for one, other in PAIRS:
            if table.get(one) and table.get(other):
                yield f"{name}{one} and {name}{other} are both there"
    limit = config.get("concurrency")
    if isinstance(limit, dict) and not (isinstance(limit.get("max"), int) and limit["max"] > 0):
        yield "concurrency.max is not a whole number from 1 on"
    lists = (config["build"].get("run"), config.get("environment"))
    yield from _entries(*(lines if isinstance(lines, list) else [] for lines in lists))


def _entries(commands: list[Any], variables: list[Any]) -> Iterator[str]:
    names = [str(line).partition("=")[0] for line in variables]
    if not all(line.get("command") if isinstance(line, dict) else isinstance(line, str) for line in commands):
        yield "an entry of build.run is neither text nor a table with `command`"
    if not all(isinstance(line, str) and VARIABLE.fullmatch(line) for line in variables):
        yield "an entry of environment is not NAME=value"  # a value may be a secret, so no line is repeated
    yield from (f"environment has {name} twice" for name in names if names.count(name) > 1)
    for name in names:
        if any(fnmatchcase(name, form) for form in RESERVED):
            yield f"environment sets {name}, which Cog keeps for itself"


def settings(project: Project) -> Iterator[Finding]:
    """Whether the image's settings can be read, and leave it what it is; a shell's variables do not count."""
    assert project.settings
    variables = project.environment
    for name, value in variables.items():
        for why in (why for form, why in AGAINST.items() if fnmatchcase(f"{name}={value}", form)):
            text = f"`environment:` of cog.yaml sets {name}: {why}"
            yield Finding("error", "SETTING_CONTRADICTS", text, f"Delete the line {name}={value} of cog.yaml")
    names = sorted(name for name in variables if name.startswith("SNB_"))
    yield Finding("ok", "SETTINGS", f"settings of the image: {', '.join(names) or 'the defaults'}")


def inputs(project: Project) -> Iterator[Finding]:
    """Whether Cog derives the whole schema from predict.py, and finds there what it calls by its name."""
    schema, place = project.schema, project.config["predict"]
    count = len(schema["components"]["schemas"]["Input"]["properties"])
    file, _, class_name = place.partition(":")
    if faults := [*_lost(project, (project.root / file).read_bytes(), class_name)]:
        cure = f"Write it as it was, or run git checkout -- {file} cog.yaml"
        yield Finding("error", "PREDICTOR_BROKEN", f"{place}: {'; '.join(faults)}", cure)
    else:
        yield Finding("ok", "SCHEMA", f"the schema of {place} has {count} inputs")


def _lost(project: Project, source: bytes, class_name: str) -> Iterator[str]:
    """What the class no longer says, or what says something else."""
    classes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef))
    body = next(node.body for node in classes if node.name == class_name)
    methods = {node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    marks = " ".join(map(ast.unparse, methods["predict"].decorator_list))
    yield from (f"{name} is gone: {why}" for name, why in METHODS.items() if name not in methods)
    yield from (f"predict is no longer @{mark}" for mark in ("streaming", "concurrent") if mark not in marks)
    for name, form in forms(project.schema).items():
        it, low, high = form.get("default"), form.get("minimum", -inf), form.get("maximum", inf)
        if it not in form.get("enum", [it]) or (isinstance(it, int | float) and not low <= it <= high):
            yield f"the default of {name} is not among what it takes"
    if "run" in methods:
        yield "run is there beside predict, and Cog takes one of them"
    limit = project.config.get("concurrency")
    if isinstance(limit, dict) and limit.get("max") and f"(max={limit['max']})" not in marks:
        yield "concurrency.max of cog.yaml overrules its @concurrent"
    file, _, name = str(project.config.get("train") or "").partition(":")
    path = project.root / file
    if file and not (path.is_file() and sources.broken(path) is None and name in sources.members(path)):
        yield f"train of cog.yaml names {file}:{name}, which is not there or not Python"
