"""How much of the build context no boot needs."""

from collections.abc import Iterator

from snb.errors import SNBError
from tools.publishing.finding import Finding, error, ok, unread, warning
from tools.publishing.project import Project

ALLOWANCE = 50 * 10**6
"""Bytes beside the weights that nobody is asked about. What this project sends has 0.2 MB (counted)."""
BOUND = 2 * 10**9
"""Bytes beside the weights that no code has: every cold boot would pull them, 8 s at 2 Gbit/s."""
NAMED = 5
CURE = "Name what no boot needs in .dockerignore, or move it out of the project"


def check(project: Project) -> Iterator[Finding]:
    """Compares what is sent with the weights that are wanted."""
    context = project.context
    try:
        wanted = project.weights.names
    except SNBError as failure:
        yield unread("CONTEXT_UNJUDGED", f"what of {_shown(context.size)} is needed", failure)
        return
    rest = context.without(wanted)
    read = context.size - rest.size
    said = f"Docker would send {_shown(context.size)}, of which a boot reads {_shown(read)} as weights"
    if rest.size <= ALLOWANCE:
        yield ok("CONTEXT", said)
        return
    largest = [(name, size) for name, size in rest.largest(NAMED) if 100 * size >= rest.size]
    named = ", ".join(f"{name} ({_shown(size)})" for name, size in largest)
    said = f"{said}, and {_shown(rest.size)} else: {named}"
    if rest.size > BOUND:
        yield error("CONTEXT_TOO_LARGE", said, CURE)
    else:
        yield warning("CONTEXT_NEEDLESS", said, CURE)


def _shown(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 10**9 else f"{size / 1e6:.1f} MB"
