"""Whether the packages of the image and Cog's SDK are named, and are those that this project needs."""

from collections.abc import Iterator

from packaging.utils import canonicalize_name

from tools.publishing.finding import Finding
from tools.publishing.project import PIN, Project


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
    """Whether Cog puts the SDK into the image that requirements.txt puts there too."""
    version, pin = project.config.build.sdk_version, project.versions.get("cog")
    if pin and version != pin:
        text = f"cog.yaml has sdk_version {version}, and requirements.txt cog=={pin}"
        yield Finding("error", "SDK_MISMATCH", text, f'Write sdk_version: "{pin}" into cog.yaml')
