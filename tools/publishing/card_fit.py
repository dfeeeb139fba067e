"""Whether the chosen hardware holds the model, by the estimator that a boot asks too."""

import dataclasses
from collections.abc import Iterator

from transformers import Qwen2Config

from snb.card import Choice, choose
from snb.errors import DeviceUnusable, OutOfMemory, SNBError
from snb.settings import Settings
from tools.benchmarking.bounds import CARDS, Card
from tools.publishing.finding import Finding, error, ok, unchecked, unread, warning
from tools.publishing.project import Project

HARDWARE = {"t4": "T4", "l40s": "L40S", "a100": "A100 80GB SXM", "h100": "H100 SXM"}
"""What Replicate rents, by the names that scripts/doctor takes: the card of it in `bounds`."""


def card_of(hardware: str) -> Card:
    """The card of one of HARDWARE."""
    return next(card for card in CARDS if card.name == HARDWARE[hardware])


def check(project: Project) -> Iterator[Finding]:
    """Says for one card whether it will do, or for every card what fits."""
    try:
        config, settings, prepared = _model(project)
    except SNBError as failure:
        yield unread("CARD_UNKNOWN", "whether a card is large enough", failure)
        return
    if config is None:
        said = "whether a card is large enough: the base's config.json could not be read"
        yield unchecked("CARD_UNKNOWN", said, "Do first what the lines on weights say")
    elif project.card:
        yield _judged(project.card, config, settings, prepared)
    else:
        yield from _every(config, settings)


def _model(project: Project) -> tuple[Qwen2Config | None, Settings, bool]:
    """What a boot would ask the estimator: prepared weights have their precision already."""
    settings = project.settings
    held = project.weights.held
    config = next((one.config for one in held if one.config), None)
    precision = next((one.precision for one in held if one.precision), None)
    if precision:
        settings = dataclasses.replace(settings, precision=precision)
    return config, settings, precision is not None


def _judged(card: Card, config: Qwen2Config, settings: Settings, prepared: bool) -> Finding:
    try:
        choice = choose(config, settings, card.device)
    except (DeviceUnusable, OutOfMemory) as failure:
        code = "CARD_TOO_SMALL" if isinstance(failure, OutOfMemory) else "CARD_CANNOT"
        said = f"{card.name}: {'; '.join(failure.faults)}"
        return error(code, said, _cure(card, config, settings, prepared))
    said = f"{card.name}: {choice.precision}, {choice.slots} of {settings.slots} slots, {choice.need}"
    if choice.slots < settings.slots:
        cure = f"SNB_SLOTS={choice.slots} in `environment:` of cog.yaml says so, or take a larger card"
        return warning("CARD_FEWER_SLOTS", said, cure)
    return ok("CARD", said)


def _cure(card: Card, config: Qwen2Config, settings: Settings, prepared: bool) -> str:
    """Which precision would run on this card, and which card would run this precision."""
    fitting = _choice(card, config, settings, "auto")
    larger = [key for key in HARDWARE if _choice(card_of(key), config, settings, settings.precision)]
    cures = []
    if fitting and prepared:
        cures.append(f"prepare the weights again: scripts/prepare-weights --precision {fitting.precision}")
    elif fitting:
        cures.append(f"write SNB_PRECISION={fitting.precision} into `environment:` of cog.yaml")
    if larger:
        cures.append(f"choose --hardware {larger[0]}")
    return ", or ".join(cures) or "take a smaller SNB_CONTEXT"


def _every(config: Qwen2Config, settings: Settings) -> Iterator[Finding]:
    found = {key: _choice(card_of(key), config, settings, settings.precision) for key in HARDWARE}
    fits = [f"{key}: {one.precision}, {one.slots} slots" for key, one in found.items() if one]
    if fits:
        unfit = ", ".join(key for key, one in found.items() if not one)
        yield ok("CARD", f"no --hardware; {'; '.join(fits)}" + (f"; too small: {unfit}" if unfit else ""))
    else:
        said = f"no card of Replicate holds this in {settings.precision}"
        yield error("CARD_TOO_SMALL", said, "Set SNB_PRECISION=nf4, or a smaller SNB_CONTEXT")


def _choice(card: Card, config: Qwen2Config, settings: Settings, precision: str) -> Choice | None:
    try:
        return choose(config, dataclasses.replace(settings, precision=precision), card.device)
    except (DeviceUnusable, OutOfMemory):
        return None
