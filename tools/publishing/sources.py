"""What the image installs and runs: packages, settings, the contract of predict.py, code and personas."""

import ast
import os
from collections.abc import Iterator

from packaging.utils import canonicalize_name

from tools.publishing.finding import Finding
from tools.publishing.project import PIN, Project

PACKAGE, PINS = "snb", "weights/pins.json"
PERSONAS = f"{PACKAGE}/philosophers"
SHOW = rf"Run printf '!%s\n' cog.yaml predict.py requirements.txt {PACKAGE} {PINS} >> .dockerignore"


def pins(project: Project) -> Iterator[Finding]:
    """Whether every package that the image installs has an exact version."""
    if loose := [pin for pin in project.pins if not PIN.fullmatch(pin)]:
        # Such a line may be a URL with a password in it, so it is not repeated.
        text = f"{len(loose)} of {len(project.pins)} lines of `python_requirements` are not NAME==VERSION"
        cure = "Name requirements.txt there, and run scripts/pin-packages, which writes it"
        yield Finding("error", "CONFIG_UNPINNED", text, cure)
    else:
        yield Finding("ok", "CONFIG", "every package of the image has a version")


def packages(project: Project) -> Iterator[Finding]:
    """Whether requirements.txt has every package that pyproject.toml names, in a version that it allows."""
    for one in project.needs:
        version = project.versions.get(canonicalize_name(one.name))
        if version is None:
            text, cure = f"the image would not have {one.name}", "Run scripts/pin-packages, which adds it"
            yield Finding("error", "PACKAGE_ABSENT", text, cure)
        elif version not in one.specifier:
            text = f"the image would install {one.name} {version}, and pyproject.toml wants {one.specifier}"
            cure = "Run scripts/pin-packages; --help says how it takes a newer one"
            yield Finding("error", "PACKAGE_VERSION", text, cure)


def sdk(project: Project) -> Iterator[Finding]:
    """Whether cog.yaml and requirements.txt name the same version of Cog's SDK."""
    version, pin = project.config.build.sdk_version, project.versions.get("cog")
    if pin and version != pin:
        text = f"cog.yaml has sdk_version {version}, and requirements.txt cog=={pin}"
        yield Finding("error", "SDK_MISMATCH", text, f'Write sdk_version: "{pin}" into cog.yaml')


def settings(project: Project) -> Iterator[Finding]:
    """Whether the settings in cog.yaml can be read; this shell's do not count. Raises BadSetting."""
    assert project.settings
    names = sorted(name for name in project.environment if name.startswith("SNB_"))
    yield Finding("ok", "SETTINGS", f"settings of the image: {', '.join(names) or 'the defaults'}")


def inputs(project: Project) -> Iterator[Finding]:
    """Whether Cog derives the whole schema from predict.py. Raises BadContract."""
    count = len(project.schema["components"]["schemas"]["Input"]["properties"])
    yield Finding("ok", "SCHEMA", f"the schema of {project.config.predict} has {count} inputs")


def files(project: Project) -> Iterator[Finding]:
    """Whether every file that the image is built from or runs is sent, and its code is valid Python."""
    names = _names(project)
    if hidden := [name for name in names if name not in project.context.files]:
        text = f"{len(hidden)} files would not be in the image: {', '.join(hidden[:3])}"
        cure = f"{SHOW}, and put files in the place of links"
        yield Finding("error", "FILE_NOT_SENT", f"{text}{' …' * (len(hidden) > 3)}", cure)
    for name in (one for one in names if one.startswith(PACKAGE) and one.endswith(".py")):
        try:
            ast.parse((project.root / name).read_bytes())
        except (SyntaxError, ValueError) as error:
            text = f"{name}, line {getattr(error, 'lineno', 0)}, is not Python, and nothing would boot"
            yield Finding("error", "SOURCE_BROKEN", text, f"Mend it, or run git checkout -- {name}")


def personas(project: Project) -> Iterator[Finding]:
    """Whether each choice of `philosopher` has a persona, and no persona is empty."""
    choices = {*project.schema["components"]["schemas"].get("philosopher", {}).get("enum", [])}
    texts = {path.stem: path for path in (project.root / PERSONAS).glob("*.txt")}
    for name in sorted(choices - texts.keys()):
        text = f"predict.py offers {name}, and {PERSONAS}/{name}.txt is not there"
        cure = f"Run git checkout -- {PERSONAS}, or take {name} out of `choices` in predict.py"
        yield Finding("error", "PERSONA_ABSENT", text, cure)
    for name, path in sorted(texts.items()):
        if not path.read_bytes().strip():
            cure = f"Write in it what he should be, or run git checkout -- {PERSONAS}/{name}.txt"
            yield Finding("error", "PERSONA_EMPTY", f"{PERSONAS}/{name}.txt is empty", cure)


def _names(project: Project) -> list[str]:
    """The files here that the image needs: cog.yaml, predict.py, requirements, pins, code and personas."""
    paths = [path for path in (project.root / PACKAGE).rglob("*") if "__pycache__" not in path.parts]
    config = project.config
    named = ("cog.yaml", PINS, config.build.python_requirements, config.predict.partition(":")[0])
    paths += [project.root / name for name in named]
    return sorted(os.path.relpath(path, project.root) for path in paths if path.is_file())
