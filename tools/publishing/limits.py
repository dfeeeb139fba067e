"""Whether the image can be built here, boots in time, and fits a card that Replicate has."""

import dataclasses
from collections.abc import Iterator

from transformers import Qwen2Config

from snb.card import CARDS, choose
from snb.errors import DeviceUnusable, OutOfMemory
from snb.settings import Settings
from tools.publishing import layers
from tools.publishing.finding import LEVELS, Finding
from tools.publishing.project import Project

RATE = 2e9 / 8
"""Bytes a second at which an image or weights arrive; an assumption."""
SETUP = 600
"""Seconds after which Replicate gives up a boot: https://replicate.com/docs/topics/predictions/lifecycle"""
_NAMES = {"t4": "T4 (16 GB)", "l40s": "L40S (48 GB)", "a100": "A100 (80 GB)", "h100": "H100 (80 GB)"}
HARDWARE = {key: next(card for card in CARDS if card.name == name) for key, name in _NAMES.items()}
"""The cards that Replicate rents, by its names."""


def build(project: Project) -> Iterator[Finding]:
    """Whether the image fits the disk, and how long it takes to push."""
    sent = project.context.files
    return layers.build([sum(sent[name] for name in project.sent_weights)])


def setup_time(project: Project) -> Iterator[Finding]:
    """Seconds that the bytes of a first boot take; loading comes on top, and depends on the card."""
    below = sum(layers.CODE) / RATE
    pull = sum(project.context.files.values()) / RATE
    download = sum(held.download for held in project.weights) / RATE
    text = (
        f"computed at 2 Gbit/s: {below:.0f} s to pull Cog's layers where they are not there yet, "
        f"{pull:.0f} s what is sent, {download:.0f} s to download weights"
    )
    if below + pull + download > SETUP:
        cure = "Run scripts/prepare-weights --precision nf4 and send that alone: a third of the bytes"
        yield Finding("error", "SETUP_TOO_SLOW", f"{text}; Replicate gives a boot {SETUP} s", cure)
    elif all(held.names or held.download for held in project.weights):  # else they say what is unknown
        yield Finding("ok", "SETUP_TIME", f"{text}, of {SETUP} s to set up")


def card(project: Project) -> Iterator[Finding]:
    """Whether the chosen hardware, or else any, holds the model, by the estimate that a boot makes too."""
    model = project.weights[-1]
    if model.config is None:
        return  # the finding on the base says what is wrong with it
    precision = model.precision or project.settings.precision
    settings = dataclasses.replace(project.settings, precision=precision)
    each = [_judged(one, model.config, settings) for one in HARDWARE if project.hardware in (None, one)]
    best = max(each, key=lambda finding: LEVELS.index(finding.level))
    yield dataclasses.replace(best, text="; ".join(finding.text for finding in each))


def _judged(hardware: str, config: Qwen2Config, settings: Settings) -> Finding:
    try:
        choice = choose(config, settings, HARDWARE[hardware])
    except (DeviceUnusable, OutOfMemory) as failure:
        code = "CARD_TOO_SMALL" if isinstance(failure, OutOfMemory) else "CARD_CANNOT"
        cure = f"{failure.cure}; prepared weights are made again by scripts/prepare-weights --precision"
        return Finding("error", code, f"{hardware}: {'; '.join(failure.faults)}", cure)
    text = f"{hardware}: {choice.precision}, {choice.slots} of {settings.slots} slots, {choice.need}"
    if choice.slots < settings.slots:
        cure = f"SNB_SLOTS={choice.slots} in `environment:` of cog.yaml says so, or take a larger card"
        return Finding("warning", "CARD_FEWER_SLOTS", text, cure)
    return Finding("ok", "CARD", text)
