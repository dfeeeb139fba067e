"""Every check of scripts/doctor, in the order of its report; one that breaks keeps back no other."""

from collections.abc import Callable, Iterator

from snb.errors import SNBError
from tools.publishing import (
    card_fit,
    contract,
    image_size,
    installed,
    published_schema,
    registry_login,
    secret_scan,
    setup_time,
)
from tools.publishing.finding import Finding, error, unread
from tools.publishing.project import Project


def weights(project: Project) -> Iterator[Finding]:
    """What the image will find of weights."""
    try:
        yield from project.weights.findings
    except SNBError as failure:
        yield unread("WEIGHTS_UNREAD", "weights", failure)


Check = Callable[[Project], Iterator[Finding]]
CHECKS: tuple[tuple[str, Check], ...] = (
    ("cog", installed.cog),
    ("docker", installed.docker),
    ("login", registry_login.check),
    ("config", contract.config),
    ("settings", contract.settings),
    ("schema", contract.derivable),
    ("inputs", published_schema.check),
    ("weights", weights),
    ("secrets", secret_scan.check),
    ("context", image_size.check),
    ("setup time", setup_time.check),
    ("card", card_fit.check),
)


def run(project: Project) -> Iterator[Finding]:
    """Every finding of every check, as it comes."""
    for name, check in CHECKS:
        yield from _guarded(name, check, project)


def _guarded(name: str, check: Check, project: Project) -> Iterator[Finding]:
    try:
        yield from check(project)
    except SNBError as failure:
        yield error("CHECK_FAILED", f"{name}: {'; '.join(failure.faults)}", failure.cure)
    except Exception as failure:  # a bug is one more finding; its text may hold what no report may
        yield error("CHECK_FAILED", f"{name}: {type(failure).__name__}", "Report this bug")
