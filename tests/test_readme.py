"""The documents agree with the code, and their links lead somewhere."""

import re
from dataclasses import fields
from pathlib import Path
from urllib.parse import unquote

import pytest

from snb.settings import DEVICES, PATHS, PRECISIONS, ROOT, Settings
from tests import scripts

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_the_tables_that_mirror_code_are_those_of_the_code() -> None:
    assert scripts.code("readme", "--check") == 0, "run scripts/readme"


def test_every_module_is_on_the_map() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    modules = {f"snb/{path.name}" for path in (ROOT / "snb").glob("[a-z]*.py")}
    assert not {module for module in modules if f"`{module}`" not in text}


def test_every_setting_is_explained() -> None:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert not {name for one in fields(Settings) if f"`{(name := one.metadata['env'])}`" not in text}


def test_every_default_and_choice_of_a_setting_is_that_of_the_code() -> None:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)`[^|]* \|(.*)\|$", text, re.MULTILINE))
    shown = {name: row.split("|")[0].strip(" `") for name, row in rows.items()}
    plain = {one.metadata["env"]: str(one.default) for one in fields(Settings) if type(one.default) is int}
    plain |= dict.fromkeys(("SNB_PREPARED", "SNB_PRECISION", "SNB_DEVICE", "SNB_PATH"), "auto")
    assert {name: shown[name] for name in plain} == plain
    for name, choices in (("SNB_PRECISION", PRECISIONS), ("SNB_DEVICE", DEVICES), ("SNB_PATH", PATHS)):
        assert not {choice for choice in choices if f"`{choice}`" not in rows[name]}, name


def test_the_readme_is_read_in_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1500


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    targets = re.findall(r"\]\((?!\w+:)([^)\s]*)\)", document.read_text(encoding="utf-8"))
    for target in targets:
        path, _, anchor = unquote(target).partition("#")
        linked = document.parent / path if path else document
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to headings: https://docs.github.com/get-started/writing-on-github"""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
