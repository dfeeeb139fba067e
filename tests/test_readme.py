"""The README says what the code does."""

import subprocess
import sys

from snb.settings import ROOT


def test_the_tables_that_mirror_code_are_those_of_the_code() -> None:
    check = subprocess.run([sys.executable, str(ROOT / "scripts" / "readme"), "--check"], check=False)
    assert check.returncode == 0, "run scripts/readme"


def test_every_module_is_on_the_map() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    modules = {f"snb/{path.name}" for path in (ROOT / "snb").glob("[a-z]*.py")}
    assert not {module for module in modules if f"`{module}`" not in text}
