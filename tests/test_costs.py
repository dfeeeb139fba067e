"""scripts/costs: bills and bounds against sums done by hand, and the tables of docs/costs.md."""

import re
from pathlib import Path

import pytest
from transformers import Qwen2ForCausalLM

from snb.card import Footprint
from snb.settings import ROOT, Settings
from tests import scripts
from tests.tiny import tiny_config
from tools.benchmarking.bounds import QWEN_14B, Bounds, Rates
from tools.command import Fault
from tools.pricing import costs
from tools.pricing.costs import FILE, Machine, machines, read
from tools.pricing.minutes import minutes, sizes, verdict, ways

PAGE = (ROOT / "docs" / "costs.md").read_text(encoding="utf-8")
RUNBOOK = (ROOT / "docs" / "repli.md").read_text(encoding="utf-8")
BOUNDS = Bounds(QWEN_14B)
HEAD, LAYERS = 152064 * 5120, 48 * (5120 * 5120 * 2 + 5120 * 1024 * 2 + 5120 * 13824 * 3)
"""Numbers of weights: the output embedding; query and output, keys and values, MLP matrices of all layers."""


@pytest.fixture(scope="module")
def chosen() -> list[Machine]:
    return list(machines(read()))


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [("L4 = 621", "L5 = 621", r"OVHcloud, by the month, prices, L5.*match.*T4\|"), ("= 621", "", "line ")],
)
def test_a_price_file_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, old: str, new: str, fault: str
) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(FILE.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(Fault, match=f"^prices.toml: .*{fault}.*Its first lines explain") as refused:
        read(file)
    assert "\n" not in str(refused.value)


def test_the_plans_own_figures_are_judged_by_the_prices(chosen: list[Machine]) -> None:
    months = [one.price for one in chosen if one.unit == "month"]
    hours = [730 * one.price for one in chosen if one.host in ("AWS", "Azure", "Google Cloud")]
    public = [one for one in chosen if one.unit == "active second"]
    [woken] = [one for one in chosen if (one.unit, one.card.name) == ("second", "L40S")]
    cold = woken.bill(0, BOUNDS.footprint.weights("bf16") / costs.BOOT_RATE + woken.wait(1))
    days = [24 * one.hourly for one in chosen if one not in public]
    figures = [f"${min(months):.0f}", f"${min(hours):.0f}", f"${cold:.2f}"]
    figures += [f"${one.wait(1) * one.price:.4f}" for one in public]
    figures += [f"${min(days):.2f}", f"${max(days):.2f}"]
    assert not [figure for figure in figures if figure not in PAGE]


def test_minutes_are_of_the_files_as_they_are_and_ten_are_promised_by_the_sum(tmp_path: Path) -> None:
    footprint, absent = Footprint(QWEN_14B), Settings(prepared="none", weights_dir=tmp_path)
    computed = footprint.weights("nf4"), footprint.weights("bf16"), "computed, computed"
    assert sizes(absent) == computed
    for name, size in (("prepared", 12e9), ("base", 30e9), ("adapter", 6e9)):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "shard").open("wb") as file:
            file.truncate(int(size))  # sparse: no block is written
    base, adapter, prepared = (str(tmp_path / name) for name in ("base", "adapter", "prepared"))
    here = Settings(prepared=prepared, base_model=base, adapter=adapter)
    assert sizes(here) == (12e9, 36e9, "as here, as here")
    sums = [[minutes(rate, *steps) for rate in rates] for _, rates, steps in ways(12e9, 36e9)]
    before, image, _, volume, pod, stopgap = sums
    # 36 GB and 21 GB at 100 Mbit/s and 1 Gbit/s; 4.1 + 36 GB at 1 and 2 Gbit/s.
    assert before == pytest.approx([8 * 57e9 / 1e8 / 60, 8 * 57e9 / 1e9 / 60])
    assert image == pytest.approx([(8 * 21e9 / rate + 34) / 60 for rate in (1e9, 2e9)])
    assert volume == pytest.approx([(8 * 12e9 / rate + 34) / 60 for rate in (1e9, 2e9)])
    assert pod == pytest.approx([(8 * 40.1e9 / rate + 9.5 + 6 + 34) / 60 for rate in (1e9, 2e9)])
    assert stopgap == [0, 0]
    _, _, line, _, stock, _ = map(verdict, ways(12e9, 36e9))
    assert stock.endswith("no more than 3.8 (fast 6.5)")
    assert line.endswith("not in 10 minutes on the slow line")
    assert verdict(ways(12e9, 400e9)[4]).endswith("not in 10 minutes")


@pytest.mark.parametrize("tied", [False, True])
def test_a_step_reads_a_whole_model_but_an_embedding_that_is_looked_up(tied: bool) -> None:
    model = Qwen2ForCausalLM(tiny_config(tie_word_embeddings=tied))
    parts = [part.nbytes for name, part in model.named_parameters() if tied or "embed" not in name]
    buffers = sum(part.nbytes for part in model.buffers())
    assert Bounds(model.config).read("fp32", 1, 0) == sum(parts) + buffers


def test_steps_are_bound_by_memory_or_by_the_tensor_cores() -> None:
    weights, cache = BOUNDS.read("bf16", 1, 0), 16 * 1000 * 2 * 48 * 8 * 128 * 2  # keys, values, 16 bits
    assert weights == pytest.approx(2 * (LAYERS + HEAD), rel=1e-4)
    assert BOUNDS.read("bf16", 16, 1000) - weights == cache
    assert BOUNDS.read("nf4", 8, 100, unpacked=True) - BOUNDS.read("nf4", 8, 100) == 2 * 2 * LAYERS
    slow, weak, pair = Rates(1e9, 1e18), Rates(1e15, 1e12), 4 * 48 * 40 * 128
    assert BOUNDS.decode(slow, "bf16", 1, 0) == weights / 1e9
    assert BOUNDS.prefill(slow, "bf16", 513) == pytest.approx(2 * weights / 1e9)  # read once per 512 tokens
    assert BOUNDS.decode(weak, "bf16", 8, 100) == pytest.approx((16 * (LAYERS + HEAD) + 800 * pair) / 1e12)
    flops = 600 * LAYERS + (300 * 301 / 2) * pair + 2 * HEAD
    assert BOUNDS.prefill(weak, "nf4", 300) == pytest.approx(flops / 1e12)


def test_the_runbook_s_table_of_cards_is_what_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNB_PRECISION", "nf4")
    computed = {one.card.name.split(" 80GB")[0]: one for one in machines(read())}
    rows = re.findall(r"^\| (?:nf4|Questions à|Attente du dernier)[^|]* \| (.*) \|$", RUNBOOK, re.MULTILINE)
    names, slots_of, seconds_of = (row.split(" | ") for row in rows)
    for name, slots, seconds in zip(names, slots_of, seconds_of, strict=True):
        assert slots == str(computed[name].choice.slots), name
        assert seconds == f"{computed[name].wait(30):.0f}\N{NO-BREAK SPACE}s", name


def test_fp8_is_priced_on_every_card_that_has_it_and_room_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNB_PRECISION", "fp8")
    priced = {one.card.name for one in machines(read())}
    assert priced == {"L4", "RTX 4090", "L40S", "H100 SXM"}


def test_the_page_shows_what_its_commands_print(
    chosen: list[Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(costs, "machines", lambda _: chosen)
    monkeypatch.setenv("SNB_WEIGHTS_DIR", str(tmp_path))
    for arguments in re.findall(r"^scripts/costs (.*?) +#", PAGE, re.MULTILINE):
        assert scripts.code("costs", *arguments.split()) == 0
    printed = capsys.readouterr().out.splitlines()
    assert not [line for line in PAGE.splitlines() if line.startswith("| ") and line not in printed]
