"""docs/repli.md: the commands of this package that it names take the options that it gives them."""

import re
import shlex

import pytest

from snb.settings import ROOT
from tests import scripts

LINE = re.compile(r"^ *(?:\w+=\S+ )*scripts/([\w-]+)(.*)$", re.MULTILINE)
UNKNOWN = "--an-option-that-nobody-has"


@pytest.mark.parametrize("line", LINE.findall((ROOT / "docs" / "repli.md").read_text(encoding="utf-8")))
def test_a_command_of_the_runbook_is_understood(
    line: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    name, options = line[0], re.sub(r"\$\w+", "owner/name", line[1])
    # All else was right, or argparse would have named that first.
    assert scripts.code(name, *shlex.split(options, comments=True), UNKNOWN) == 2
    assert capsys.readouterr().err.rstrip().endswith(f"unrecognized arguments: {UNKNOWN}")
