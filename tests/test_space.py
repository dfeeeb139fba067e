"""deploy/huggingface, as the hub reads it; tests/test_image.py builds and runs it."""

import re
from typing import Any

import pytest
from huggingface_hub import SpaceCard, SpaceHardware

from snb.settings import Settings
from tests.hosts import DEPLOY
from tests.image_root import dockerfile

pytestmark = pytest.mark.slow  # the first test in a new clone downloads the hosts' own tools

SPACE = DEPLOY / "huggingface"


@pytest.fixture(scope="module")
def file() -> dict[str, Any]:
    """The Dockerfile, as dockerfile-parse reads it."""
    return dockerfile(SPACE / "Dockerfile")


def values(file: dict[str, Any], kind: str) -> list[str]:
    return [step["value"] for step in file["steps"] if step["instruction"] == kind]


def test_the_hub_s_own_card_reads_the_front_matter(file: dict[str, Any]) -> None:
    card = SpaceCard.load(SPACE / "README.md").data
    assert card.sdk == "docker"
    assert values(file, "EXPOSE") == [str(card.app_port)]
    assert card.suggested_hardware in {one.value for one in SpaceHardware}
    assert re.fullmatch(r"\d+(m|h)", card.startup_duration_timeout)
    assert len(card.short_description) <= 60  # https://huggingface.co/docs/hub/spaces-config-reference
    assert card.models == [Settings().base_model, Settings().adapter]


def test_the_dockerfile_starts_from_an_image_that_is_named_and_holds_no_secret(file: dict[str, Any]) -> None:
    assert values(file, "FROM")[-1] == "${IMAGE}"
    # A secret in an argument or variable could be read by whoever has the image.
    assert values(file, "ARG") == ["IMAGE"]
    assert not [name for name in file["variables"] if "KEY" in name or "TOKEN" in name]
    Settings.from_environment(file["variables"])
