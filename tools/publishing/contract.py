"""cog.yaml and predict.py as `cog build` would take them, and the settings that go with them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snb.errors import SNBError
from tools.machine import pins as read_pins
from tools.publishing.finding import Finding, error, ok, warning
from tools.publishing.project import BadConfig, Project
from tools.serving import schema

KEYS = {
    "": {"build", "concurrency", "environment", "image", "model", "predict", "run", "train", "weights"},
    "build": {
        "cuda",
        "cudnn",
        "gpu",
        "pre_install",
        "python_packages",
        "python_requirements",
        "python_version",
        "run",
        "sdk_version",
        "system_packages",
    },
}
"""What Cog 0.23 knows, at the top and in `build`: it refuses anything else (cog, config_schema_v1.0.json)."""
PIN = re.compile(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[0-9][A-Za-z0-9.]*")
CUDA = ("12.6", "12.8", "13.0")
PAIRS = {"2.9.0": CUDA, "2.9.1": CUDA, "2.10.0": CUDA, "2.11.0": ("12.6", "12.8", "12.9", "13.0")}
"""The newest versions of torch of which Cog has a base image, with their CUDA. Read in November 2026."""
STORED = Path(".cog") / "openapi_schema.json"
OVERRIDE = "COG_OPENAPI_SCHEMA"


def config(project: Project) -> Iterator[Finding]:
    """Whether cog.yaml holds what Cog knows and this project needs."""
    try:
        found = list(_faults(project))
    except BadConfig as failure:
        found = [error(failure.code, "; ".join(failure.faults), failure.cure)]
    yield from found or [ok("CONFIG", "cog.yaml names what exists, and every package has a version")]


def settings(project: Project) -> Iterator[Finding]:
    """Whether the settings can be read, and are those of the image."""
    try:
        read = project.settings
    except SNBError as failure:
        yield error("SETTINGS_BAD", "; ".join(failure.faults), failure.cure)
        return
    strange = {name for name, value in project.asked.items() if project.baked.get(name) != value}
    for name in sorted(strange):
        said = f"{name} is set here and not so in the image: no variable of this shell reaches Replicate"
        yield error("SETTING_STAYS_HERE", said, "Write it into `environment:` of cog.yaml, or unset it")
    if read.device == "cpu":
        cure = "Take it out of `environment:` of cog.yaml"
        yield error("SETTINGS_BAD", "SNB_DEVICE=cpu would leave the card of Replicate's machine idle", cure)
    elif not strange:
        yield ok("SETTINGS", f"settings of the image: {', '.join(sorted(project.baked)) or 'the defaults'}")


def derivable(project: Project) -> Iterator[Finding]:
    """Whether Cog would derive the whole schema, and whether what is stored is it."""
    try:
        document = derived(project)
    except SNBError as failure:
        yield error("SCHEMA_UNDERIVABLE", "; ".join(failure.faults), failure.cure)
        return
    inputs = document["components"]["schemas"]["Input"]["properties"]
    faults = list(_other_schemas(project, document))
    yield from faults
    if not faults:
        yield ok("SCHEMA", f"the schema of {project.config['predict']} has {len(inputs)} inputs")


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
        said = f"{file or '`predict` of cog.yaml'} cannot be read as Python: {type(failure).__name__}"
        raise schema.BadContract(said, 'Write predict: "FILE:CLASS" into cog.yaml') from failure


def _other_schemas(project: Project, document: schema.Part) -> Iterator[Finding]:
    """Schemas that say something else than predict.py; `cog build` writes its own version into them."""
    given = project.environ.get(OVERRIDE)
    if given:
        same = _comparable(_document(project.root / given)) == _comparable(document)
        said = f"{OVERRIDE} is set: cog build would embed that file and not look at predict.py"
        cure = f"Unset {OVERRIDE}"
        yield (warning if same else error)("SCHEMA_OVERRIDDEN", said, cure)
    if (project.root / STORED).exists():
        stored = _document(project.root / STORED)
        if _comparable(stored) != _comparable(document):
            said = f"{STORED} is not what predict.py says now: nothing here has run with these inputs"
            yield error("SCHEMA_STALE", said, "Delete it, or write it again: .venv/bin/python -m snb.schema")


def _document(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _comparable(document: Any) -> Any:
    if isinstance(document, dict) and isinstance(document.get("info"), dict):
        return {**document, "info": {**document["info"], "version": ""}}
    return document


def _faults(project: Project) -> Iterator[Finding]:
    config, build = project.config, project.config["build"]
    for table, found in (("", config), ("build", build)):
        for key in sorted(map(str, found.keys() - KEYS[table])):
            cure = f"Take it out, or write one of {', '.join(sorted(KEYS[table]))}"
            yield error("CONFIG_KEY", f"cog.yaml: {key} is no key of {table or 'the file'}", cure)
    if "model" in config or project.environ.get("COG_MODEL"):
        said = "`model` in cog.yaml, or COG_MODEL, fixes where to push, and cog push then takes no name"
        yield error("CONFIG_KEY", said, "Take it out: scripts/push names the model")
    file, _, name = str(config.get("predict", "")).partition(":")
    if not name or not (project.root / file).is_file():
        cure = 'Write predict: "predict.py:Predictor"'
        yield error("CONFIG_PREDICT", "`predict` of cog.yaml names no file and class that exist", cure)
    if not build.get("gpu"):
        yield error("CONFIG_GPU", "cog.yaml asks for no GPU", "Write gpu: true into `build`")
    for key in ("python_version", "sdk_version", "cuda"):
        if not build.get(key):
            yield error("CONFIG_UNPINNED", f"cog.yaml: build.{key} is absent", "Name a version")
    yield from _package_faults(project)


def _package_faults(project: Project) -> Iterator[Finding]:
    """Requirements without an exact version, and a torch that Cog has no base image of."""
    build = project.config["build"]
    file = project.root / str(build.get("python_requirements", ""))
    if not file.is_file():
        said = "`python_requirements` of cog.yaml names no file that exists"
        yield error("CONFIG_UNPINNED", said, "Write python_requirements: requirements.txt")
        return
    pins = read_pins(file)
    if loose := [pin for pin in pins if not PIN.fullmatch(pin)]:
        # Such a line may be an address with a password in it.
        said = f"{file.name}: {len(loose)} of {len(pins)} lines have no exact version"
        yield error("CONFIG_UNPINNED", said, "Write each as name==version; scripts/pin-packages does")
    torch = next((pin.partition("==")[2] for pin in pins if pin.startswith("torch==")), None)
    cuda = str(build.get("cuda"))
    if cuda not in PAIRS.get(str(torch), ()):
        said = f"Cog has no base image of torch {torch or '(not pinned)'} with CUDA {cuda}"
        pairs = (f"{name} with {', '.join(versions)}" for name, versions in PAIRS.items())
        cure = f"Pin torch {'; or '.join(pairs)}"
        yield warning("CONFIG_TORCH_CUDA", f"{said}, so building and booting take longer", cure)
