"""How long a first boot takes on Replicate, which ends one that has not set up within ten minutes."""

from collections.abc import Iterator
from itertools import chain

from snb.card import Footprint
from snb.errors import SNBError
from tools.publishing.finding import Finding, error, ok, unchecked, unread, warning
from tools.publishing.image_weights import Held
from tools.publishing.project import Project

LIMIT = 600
"""Seconds: https://replicate.com/docs/topics/predictions/lifecycle"""
NEAR = 0.8
LOADING = {"prepared": 5.2, "bf16": 10.8, "fp16": 10.8, "nf4": 18.2, "int8": 18.2, "auto": 18.2}
"""Seconds to load a billion parameters, prepared, or merged and held in a precision. Measured with the
stand-in (0.135 billion) on two CPU cores, 2026-11-25, the best of three on a busy machine: 0.70 s prepared
nf4, 1.45 s bf16, 2.45 s nf4. Never on a GPU, which should be faster. int8 took 11 s in a kernel that a GPU
does not use, so it is taken for nf4."""


def check(project: Project) -> Iterator[Finding]:
    """Adds up pulling the image, downloading what is not in it, and loading."""
    try:
        held = project.weights.held
    except SNBError as failure:
        yield unread("SETUP_TIME_UNKNOWN", "the time to set up", failure)
        return
    pull = project.context.size / project.bytes_per_second
    download = sum(one.download for one in held) / project.bytes_per_second
    loading = _loading(held, project.settings.precision)
    total = pull + download + loading
    rate = project.bytes_per_second * 8 / 1e9
    said = (
        f"about {total:.0f} s to set up, of {LIMIT}: {pull:.0f} s for the image and {download:.0f} s for "
        f"downloads, taking {rate:g} Gbit/s; {loading:.0f} s for loading, an estimate from a CPU"
    )
    cure = (
        "Run scripts/prepare-weights --precision nf4 and send that alone: a third of the bytes, and no merge"
    )
    if total > LIMIT:
        yield error("SETUP_TOO_SLOW", f"{said}; Replicate would give it up", cure)
    elif total > NEAR * LIMIT:
        yield warning("SETUP_SLOW", f"{said}; a slow day is enough to fail", cure)
    elif unknown := [one.source.role for one in held if not one.names and not one.download]:
        said = f"{said}; without {', '.join(unknown)}"
        yield unchecked("SETUP_TIME_UNKNOWN", said, "Do first what the lines on weights say")
    else:
        yield ok("SETUP_TIME", said)


def _loading(held: tuple[Held, ...], precision: str) -> float:
    """Seconds; 0 where nobody knows the size of the model."""
    config = next(chain(one.config for one in held if one.config), None)
    if config is None:
        return 0.0
    prepared = any(one.precision for one in held)
    rate = LOADING["prepared"] if prepared else LOADING.get(precision, LOADING["auto"])
    return rate * Footprint(config).parameters / 1e9
