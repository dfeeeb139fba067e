"""Whether cog.yaml, the image's settings and predict.py can be read, by whoever reads them in the end."""

from collections.abc import Iterator

from tools.publishing.finding import Finding
from tools.publishing.project import PIN, Project


def config(project: Project) -> Iterator[Finding]:
    """Whether cog.yaml asks for a GPU, and names every version exactly."""
    if loose := [pin for pin in project.pins if not PIN.fullmatch(pin)]:
        # Such a line may be an address with a password in it, so it is not repeated.
        text = f"{len(loose)} of {len(project.pins)} lines of `python_requirements` are not NAME==VERSION"
        cure = "Name requirements.txt there, and run scripts/pin-packages, which writes it"
        yield Finding("error", "CONFIG_UNPINNED", text, cure)
    else:
        yield Finding("ok", "CONFIG", "every package of the image has a version")


def settings(project: Project) -> Iterator[Finding]:
    """Whether the image's settings can be read; a shell's variables do not count. Raises BadSetting."""
    assert project.settings
    names = sorted(name for name in project.environment if name.startswith("SNB_"))
    yield Finding("ok", "SETTINGS", f"settings of the image: {', '.join(names) or 'the defaults'}")


def inputs(project: Project) -> Iterator[Finding]:
    """Whether Cog derives the whole schema from predict.py. Raises BadContract."""
    count = len(project.schema["components"]["schemas"]["Input"]["properties"])
    yield Finding("ok", "SCHEMA", f"the schema of {project.config.predict} has {count} inputs")
