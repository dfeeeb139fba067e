"""Whether Python, CUDA, torch, Cog's SDK and the packages of the image belong together.

Where cog.yaml or a pin names none, contract.config says so.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import packages_distributions

from packaging.utils import canonicalize_name

from tools.publishing import sources
from tools.publishing.finding import Finding
from tools.publishing.project import PIN, Project

# What Cog has base images for: pkg/config/torch_compatibility.json of Cog 0.22.0, the newest whose source is
# tagged. It builds other pairs too, with a warning, and nobody has tried them together.
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
CUDAS = {"2.10.0": ("12.6", "12.8", "13.0"), "2.11.0": ("12.6", "12.8", "12.9", "13.0")}
"""Of each torch that pyproject.toml allows."""


def packages(project: Project) -> Iterator[Finding]:
    """Whether requirements.txt has what pyproject.toml names and the code imports, in these versions."""
    _, needed = project.needs
    names = [canonicalize_name(match[1]) for match in map(PIN.match, project.pins) if match]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        text = f"requirements.txt has {', '.join(twice)} twice, and pip would install nothing"
        yield Finding("error", "PACKAGE_TWICE", text, "Run scripts/pin-packages, which writes each once")
    wanted = {canonicalize_name(one.name) for one in needed} | {*_imported(project)}
    if absent := sorted(wanted - project.versions.keys() if project.versions else ()):
        text = f"the image would not have {', '.join(absent)}"
        cure = "Write it into `dependencies` of pyproject.toml, run scripts/pin-packages; or send its file"
        yield Finding("error", "PACKAGE_ABSENT", text, cure)
    for one in needed:
        version = project.versions.get(canonicalize_name(one.name))
        if version and version not in one.specifier:
            text = f"the image would install {one.name} {version}, and pyproject.toml wants {one.specifier}"
            cure = "Run scripts/pin-packages; --help says how it takes a newer one"
            yield Finding("error", "PACKAGE_VERSION", text, cure)


def _imported(project: Project) -> Iterator[str]:
    """The packages of others that the code imports."""
    for _, module, _ in sources.imported(project):
        top = module.split(".")[0]
        beside = {f"{top}.py", f"{top}/__init__.py"} & project.context.files.keys()
        if top != sources.PACKAGE and not beside and top not in sys.stdlib_module_names:
            yield canonicalize_name(_owners().get(top, [top])[0])


def shadows(project: Project) -> Iterator[Finding]:
    """Whether nothing at the top is called like a module that is installed: /src comes first on sys.path."""
    for name in project.context.files:
        module = name.removesuffix("/__init__.py").removesuffix(".py")
        owners = {*map(canonicalize_name, _owners().get(module, ()))} & project.versions.keys()
        if module != name and (owners or module in sys.stdlib_module_names):
            text = f"{name} would be imported in the place of {' and '.join(owners) or 'Python'}'s {module}"
            cure = f"Give it another name, or run rm -r {name.partition('/')[0]}"
            yield Finding("error", "MODULE_SHADOWED", text, cure)


@cache
def _owners() -> Mapping[str, list[str]]:
    """The packages that each module which is installed here belongs to."""
    return packages_distributions()


def sdk(project: Project) -> Iterator[Finding]:
    """Whether Cog puts the SDK into the image that requirements.txt puts there too."""
    version, pin = str(project.config["build"].get("sdk_version", "")), project.versions.get("cog")
    if version and pin and version != pin:
        text = f"cog.yaml has sdk_version {version}, and requirements.txt cog=={pin}"
        yield Finding("error", "SDK_MISMATCH", text, f'Write sdk_version: "{pin}" into cog.yaml')


def python(project: Project) -> Iterator[Finding]:
    """Whether Cog builds this Python, and the project runs on it."""
    version = str(project.config["build"].get("python_version", ""))
    able = [one for one in PYTHONS if one in project.needs[0]]
    if version and not _among(able, version):
        text = f"cog.yaml has Python {version}, and Cog and this project have {', '.join(able)} in common"
        cure = f'Write python_version: "{able[0]}" into cog.yaml, with quotes: YAML reads 3.10 as 3.1'
        yield Finding("error", "PYTHON_UNSUPPORTED", text, cure)


def cuda(project: Project) -> Iterator[Finding]:
    """Whether Cog has a base image with this CUDA and this torch."""
    version, torch = str(project.config["build"].get("cuda", "")), project.versions.get("torch")
    pairs = CUDAS.get(torch or "", ())
    if version and torch and not _among(pairs, version):
        text = f"Cog has no base image of CUDA {version} and torch {torch}"
        known = "; ".join(f"torch {name} with {', '.join(cudas)}" for name, cudas in CUDAS.items())
        cure = f"Write one of these into cog.yaml and requirements.txt: {known}"
        yield Finding("error", "CUDA_MISMATCH", text, cure)


def _among(versions: Sequence[str], version: str) -> bool:
    """Whether it is one of these, or a patch release of one."""
    return any(f"{version}.".startswith(f"{one}.") for one in versions)
