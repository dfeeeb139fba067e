"""Every check of scripts/doctor, in the order of its report; one that breaks keeps back no other."""

from collections.abc import Callable, Iterator

from snb.errors import SNBError
from tools.publishing import contract, image, installed, published_inputs, secret_scan
from tools.publishing.finding import Finding, Level
from tools.publishing.project import Project

Check = Callable[[Project], Iterator[Finding]]


def weights(project: Project) -> Iterator[Finding]:
    """What the image will find of weights."""
    yield from (held.finding for held in project.weights)


CHECKS: tuple[tuple[str, Check], ...] = (
    ("CONFIG_UNREADABLE", contract.config),
    ("COG_UNCHECKED", installed.cog),
    ("DOCKER_UNCHECKED", installed.docker),
    ("LOGIN_UNCHECKED", installed.login),
    ("SETTINGS_BAD", contract.settings),
    ("SCHEMA_UNDERIVABLE", contract.inputs),
    ("INPUTS_UNCOMPARED", published_inputs.check),
    ("WEIGHTS_UNREAD", weights),
    ("SECRETS_UNREAD", secret_scan.check),
    ("CONTEXT_UNJUDGED", image.size),
    ("SETUP_TIME_UNKNOWN", image.setup_time),
    ("CARD_UNKNOWN", image.card),
)
"""Each with the code of its finding where it cannot be made."""


def run(project: Project) -> Iterator[Finding]:
    """Every finding of every check, as it comes."""
    known: set[str] = set()
    for code, check in CHECKS:
        try:
            yield from check(project)
        except SNBError as failure:
            # The first check that meets a fault reports it; those that it keeps from looking say so.
            level: Level = "not checked" if str(failure) in known else "error"
            known.add(str(failure))
            yield Finding(level, code, "; ".join(failure.faults), failure.cure)
        except Exception as failure:  # a bug is one more finding; its text may hold what no report may
            text = f"{check.__module__}.{check.__name__}: {type(failure).__name__}"
            yield Finding("error", "CHECK_FAILED", text, "Report this bug")
