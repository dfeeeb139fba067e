"""Whether Python, CUDA, torch, Cog's SDK and the packages of the image are named, and belong together."""

from collections.abc import Iterator, Sequence

from packaging.utils import canonicalize_name

from tools.publishing.finding import Finding
from tools.publishing.project import PIN, Project

# What Cog has base images for: pkg/config/torch_compatibility.json of Cog 0.22.0, the newest whose source is
# tagged. It builds other pairs too, with a warning, and nobody has tried them together.
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
CUDAS = {"2.10.0": ("12.6", "12.8", "13.0"), "2.11.0": ("12.6", "12.8", "12.9", "13.0")}
"""Of each torch that pyproject.toml allows."""


def pins(project: Project) -> Iterator[Finding]:
    """Whether every package that the image installs is named exactly."""
    if loose := [pin for pin in project.pins if not PIN.fullmatch(pin)]:
        # Such a line may be an address with a password in it, so it is not repeated.
        text = f"{len(loose)} of {len(project.pins)} lines of `python_requirements` are not NAME==VERSION"
        cure = "Name requirements.txt there, and run scripts/pin-packages, which writes it"
        yield Finding("error", "CONFIG_UNPINNED", text, cure)
    else:
        yield Finding("ok", "CONFIG", "every package of the image has a version")


def packages(project: Project) -> Iterator[Finding]:
    """Whether requirements.txt has what pyproject.toml names, in these versions."""
    for one in project.needs[1]:
        version = project.versions.get(canonicalize_name(one.name))
        if version is None:
            text, cure = f"the image would not have {one.name}", "Run scripts/pin-packages, which adds it"
            yield Finding("error", "PACKAGE_ABSENT", text, cure)
        elif version not in one.specifier:
            text = f"the image would install {one.name} {version}, and pyproject.toml wants {one.specifier}"
            cure = "Run scripts/pin-packages; --help says how it takes a newer one"
            yield Finding("error", "PACKAGE_VERSION", text, cure)


def sdk(project: Project) -> Iterator[Finding]:
    """Whether Cog puts the SDK into the image that requirements.txt puts there too."""
    version, pin = project.config.build.sdk_version, project.versions.get("cog")
    if pin and version != pin:
        text = f"cog.yaml has sdk_version {version}, and requirements.txt cog=={pin}"
        yield Finding("error", "SDK_MISMATCH", text, f'Write sdk_version: "{pin}" into cog.yaml')


def python(project: Project) -> Iterator[Finding]:
    """Whether Cog builds this Python, and the project runs on it."""
    version = project.config.build.python_version
    able = [one for one in PYTHONS if one in project.needs[0]]
    if not _among(able, version):
        text = f"cog.yaml has Python {version}, and Cog and this project have {', '.join(able)} in common"
        cure = f'Write python_version: "{able[0]}" into cog.yaml, with quotes: YAML reads 3.10 as 3.1'
        yield Finding("error", "PYTHON_UNSUPPORTED", text, cure)


def cuda(project: Project) -> Iterator[Finding]:
    """Whether Cog has a base image with this CUDA and this torch."""
    version, torch = project.config.build.cuda, project.versions.get("torch")
    pairs = CUDAS.get(torch or "", ())
    if torch and not _among(pairs, version):
        text = f"Cog has no base image of CUDA {version} and torch {torch}"
        known = "; ".join(f"torch {name} with {', '.join(cudas)}" for name, cudas in CUDAS.items())
        cure = f"Write one of these into cog.yaml and requirements.txt: {known}"
        yield Finding("error", "CUDA_MISMATCH", text, cure)


def _among(versions: Sequence[str], version: str) -> bool:
    """Whether it is one of these, or a patch release of one."""
    return any(f"{version}.".startswith(f"{one}.") for one in versions)
