"""scripts/costs: bills and bounds against sums done by hand; docs/costs.md."""

import json
import re
from pathlib import Path

import pytest
from transformers import Qwen2ForCausalLM

from snb.settings import ROOT
from tests import scripts
from tests.tiny import tiny_config
from tools.benchmarking.bounds import QWEN_14B, Bounds, Rates
from tools.command import Fault
from tools.pricing.costs import ACTIVE, FILE, HOUR, MONTH, SECOND, Machine, rates, read

BOUNDS = Bounds(QWEN_14B)
HEAD, LAYERS = 152064 * 5120, 48 * (5120 * 5120 * 2 + 5120 * 1024 * 2 + 5120 * 13824 * 3)
"""Weights of the output embedding; of query and output, keys and values, gate, up and down in all layers."""


def test_each_way_to_pay_charges_for_its_own_seconds() -> None:
    ways = (ACTIVE, 0.001), (SECOND, 0.001), (HOUR, 0.40), (MONTH, 200)
    seconds = {1: 6.0, 2: 8.0, 4: 10.0}.__getitem__  # of so many at once, four at most
    machines = [Machine("a host", "T4", "nf4", unit, price, 4, seconds, 100, 300) for unit, price in ways]
    public, private, hourly, _ = machines
    assert public.wait(30) == 7 * 10 + 8  # seven waves of four and one of two
    bills = [one.bill(5 * one.wait(30), 3 * 3600) for one in machines]
    assert bills == pytest.approx([5 * 78 * 0.001, (3 * 3600 + 300) * 0.001, 1.20, 200])
    months = [one.month(4 * bill, 24) for one, bill in zip(machines, bills, strict=True)]
    woken = 730 * (100 + 6 + 300) * 0.001
    assert months == pytest.approx([4 * 0.39 + 730 * 6 * 0.001, 4 * 11.1 + woken, 730 * 0.40, 200])
    assert hourly.month(4.80, 0) == 4.80
    assert private.month(44.40, 9999) == pytest.approx(730 * 3.60)  # it never sleeps


def test_every_price_is_dated_and_has_its_place() -> None:
    hosts = read()["hosts"]
    for host, terms in hosts.items():
        assert re.match(r"\d{4}-\d\d(-\d\d)? (at|elsewhere, see) https://\S+$", terms["read"]), host
        assert set(terms) <= {"read", "prices", "paid_by", "currency"}, host
        assert min(terms["prices"].values()) > 0, host


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [("L4 = 540", "L5 = 540", "unknown are L5"), ('"month"]', '"year"]', "year"), ("= 1.15", "", "line 1")],
)
def test_a_price_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, old: str, new: str, fault: str
) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(FILE.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(Fault, match=f"prices.toml: .*{fault}.*its first lines explain"):
        read(file)


def test_a_benchmark_gives_the_rate_of_the_level_below(tmp_path: Path) -> None:
    rows = [(1, 25.0, 0), (8, 100.0, 0), (16, 150.0, 1)]
    names = ("pupils", "tokens_per_second_in_all", "failed")
    same = {"server": "ours", "workload": "chat", "kind": "at once"}
    figures = [{**same, **dict(zip(names, row, strict=True))} for row in rows]
    file = tmp_path / "benchmark.json"
    file.write_text(json.dumps({"tables": {"figures": figures}}))
    at_once, seconds = rates(file, tokens=150)
    assert (at_once, seconds(1), seconds(4), seconds(8)) == (8, 6, 24, 12)  # of 16 one was not answered
    file.write_text('{"tables": {"figures": []}}')
    with pytest.raises(Fault, match="no level at which every request was answered"):
        rates(file, tokens=150)


@pytest.mark.parametrize("tied", [False, True])
def test_a_step_reads_a_whole_model_but_an_embedding_that_is_looked_up(tied: bool) -> None:
    model = Qwen2ForCausalLM(tiny_config(tie_word_embeddings=tied))
    parts = [part.nbytes for name, part in model.named_parameters() if tied or "embed" not in name]
    assert Bounds(model.config).read("fp32", 1, 0) == sum(parts) + sum(
        part.nbytes for part in model.buffers()
    )


def test_steps_are_bound_by_memory_or_by_the_tensor_cores() -> None:
    weights = BOUNDS.read("bf16", 1, 0)
    assert weights == pytest.approx(2 * (LAYERS + HEAD), rel=1e-4)
    assert (
        BOUNDS.read("bf16", 16, 1000) - weights == 16 * 1000 * 2 * 48 * 8 * 128 * 2
    )  # keys, values, 16 bits
    assert BOUNDS.read("nf4", 8, 100, unpacked=True) - BOUNDS.read("nf4", 8, 100) == 2 * 2 * LAYERS
    slow, weak, pair = Rates(1e9, 1e18), Rates(1e15, 1e12), 4 * 48 * 40 * 128
    assert BOUNDS.decode(slow, "bf16", 1, 0) == weights / 1e9
    assert BOUNDS.prefill(slow, "bf16", 513) == pytest.approx(
        2 * weights / 1e9
    )  # each chunk of 512 reads them
    assert BOUNDS.decode(weak, "bf16", 8, 100) == pytest.approx((16 * (LAYERS + HEAD) + 800 * pair) / 1e12)
    flops = 600 * LAYERS + (300 * 700 + 300 * 301 / 2) * pair + 2 * HEAD
    assert BOUNDS.prefill(weak, "nf4", 300, cached=700) == pytest.approx(flops / 1e12)


# Every command of the page is a program.
@pytest.mark.slow
def test_the_page_shows_what_its_commands_print(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "costs.md").read_text(encoding="utf-8")
    for name, arguments in re.findall(r"^scripts/(costs|roofline) ?(.*?)(?: +#.*)?$", page, re.MULTILINE):
        assert scripts.code(name, *arguments.split()) == 0
    printed = capsys.readouterr().out.splitlines()
    assert not [line for line in page.splitlines() if line.startswith("| ") and line not in printed]
