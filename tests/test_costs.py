"""scripts/costs: bills and bounds against sums done by hand; docs/costs.md."""

import json
import re
from argparse import Namespace
from pathlib import Path

import pytest
from transformers import Qwen2ForCausalLM

from snb.card import Footprint
from snb.settings import ROOT, Settings
from tests import scripts
from tests.tiny import tiny_config
from tools.benchmarking.bounds import QWEN_14B, Bounds, Rates
from tools.command import Fault
from tools.pricing.costs import Machine, machines, rates
from tools.pricing.minutes import sizes, ways
from tools.pricing.prices import ACTIVE, FILE, HOUR, MONTH, SECOND, read

PAGE = (ROOT / "docs" / "costs.md").read_text(encoding="utf-8")
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


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("L4 = 540", "L5 = 540", "prices of OVHcloud, by the month: not .* T4, "),
        ("L4 = 540", 'L4 = "540"', "prices of OVHcloud, by the month"),
        ("L4 = 540", "L4 = -1", "prices of OVHcloud, by the month"),
        ('["month"]', '"month"', "paid_by of OVHcloud, by the month: not a list of some of active second"),
        ('"EUR"', '"GBP"', "currency of OVHcloud: not USD or EUR"),
        ("2026-11 at", "2026-13 at", "read of Replicate: not a day or a month that exists"),
        ("2026-11 at", "2026-02-30 at", "read of Replicate: not a day or a month that exists"),
        ("2026-11 at ", "", "read of Replicate: not .* an address"),
        ("limit = ", "limits = ", "limits of Replicate is unknown; limit of Replicate: not a sentence"),
        ("gigabits_per_second = 2.0", "", "gigabits_per_second is no number above 0"),
        ("idle_minutes = 5.0", "idle_minutes = nan", "idle_minutes is no number above 0"),
        ("[hosts.", "[machines.", "hosts are no tables"),
        ("[hosts.Replicate]", "[hosts]\nReplicate = 3\n[more]", "hosts are no tables"),
        ("= 1.15", "", "line 1"),
    ],
)
def test_a_price_file_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, old: str, new: str, fault: str
) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(FILE.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(Fault, match=f"prices.toml: .*{fault}.*Its first lines explain") as refused:
        read(file)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("words", ["demonstration --hours nan", "request --tokens 0", "month --pupils -1"])
def test_a_number_that_counts_nothing_is_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert scripts.code("costs", *words.split()) == 2
    assert "numbers are from 0 to 1,000,000" in capsys.readouterr().err


# Bounds of every card are computed.
@pytest.mark.slow
def test_the_plans_own_figures_are_judged_by_the_prices() -> None:
    asked = Namespace(benchmark=None, card=None, tokens=150, prepared=False)
    chosen = list(machines(read(), asked))
    months = [one.price for one in chosen if one.unit == MONTH]
    hours = [730 * one.price for one in chosen if one.host in ("AWS", "Azure", "Google Cloud")]
    alone = {one.card: one.wait(1) * one.per_second for one in chosen if one.unit == ACTIVE}
    cold = [one.stray() for one in chosen if one.unit == SECOND and one.card == "L40S"]
    days = [86400 * one.per_second for one in chosen if one.unit != ACTIVE]
    figures = [f"${min(months):.0f}", f"${min(hours):.0f}", f"${cold[0]:.2f}"]
    figures += [f"${dollars:.4f}" for dollars in alone.values()]
    figures += [f"${min(days):.2f}", f"${max(days):.2f}"]
    assert not [figure for figure in figures if figure not in PAGE]


def test_minutes_are_of_the_files_as_they_are_and_ten_are_promised_by_the_sum(
    tmp_path: Path,
) -> None:
    settings = Settings(prepared="none", weights_dir=tmp_path)
    (ready, computed), (source, _) = sizes(settings)
    footprint = Footprint(QWEN_14B)
    assert (ready, source) == (footprint.weights("nf4"), footprint.weights("bf16"))
    assert "computed" in computed
    for name, size in (("prepared", 12e9), ("base", 30e9), ("adapter", 6e9)):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "shard").open("wb") as file:
            file.truncate(int(size))  # of which no block is written
    settings = Settings(
        prepared=str(tmp_path / "prepared"),
        base_model=str(tmp_path / "base"),
        adapter=str(tmp_path / "adapter"),
    )
    (ready, _), (source, _) = sizes(settings)
    assert (ready, source) == (12e9, 36e9)
    before, image, line, volume, pod, stopgap = ways(ready, source)
    # 36 GB and 21 GB at 100 Mbit/s and 1 Gbit/s; 4.1 + 36 GB at 1 and 2 Gbit/s.
    assert before.total == pytest.approx([8 * 57e9 / 1e8 / 60, 8 * 57e9 / 1e9 / 60])
    assert pod.total == pytest.approx([(8 * 40.1e9 / rate + 9.5 + 6 + 34) / 60 for rate in (1e9, 2e9)])
    assert image.total == pytest.approx([(8 * 21e9 / rate + 34) / 60 for rate in (1e9, 2e9)])
    assert volume.total == pytest.approx([(8 * 12e9 / rate + 34) / 60 for rate in (1e9, 2e9)])
    assert pod.verdict().endswith("no more than 3.8 (fast 6.5)")
    assert line.verdict().endswith("not in 10 minutes on the slow line")
    assert ways(12e9, 400e9)[4].verdict().endswith("not in 10 minutes")
    assert stopgap.total == [0, 0]


def test_a_benchmark_gives_the_rate_of_the_level_below(tmp_path: Path) -> None:
    rows = [(1, 25.0, 0), (8, 100.0, 0), (16, 150.0, 1)]
    names = ("pupils", "tokens_per_second_in_all", "failed")
    same = {"server": "ours", "workload": "chat", "kind": "at once"}
    figures = [{**same, **dict(zip(names, row, strict=True))} for row in rows]
    file = tmp_path / "benchmark.json"
    file.write_text(json.dumps({"tables": {"figures": figures}}))
    at_once, seconds = rates(file, tokens=150)
    assert (at_once, seconds(1), seconds(4), seconds(8)) == (8, 6, 24, 12)  # of 16 one was not answered
    for useless in (
        [],
        [{**figures[0], "tokens_per_second_in_all": 0.0}],
        [{**figures[0], "pupils": "a"}],
        3,
    ):
        file.write_text(json.dumps({"tables": {"figures": useless}}))
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
def test_the_page_shows_what_its_commands_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SNB_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setenv("SNB_PREPARED", "none")
    for name, arguments in re.findall(r"^scripts/(costs|roofline) ?(.*?)(?: +#.*)?$", PAGE, re.MULTILINE):
        assert scripts.code(name, *arguments.split()) == 0
    printed = capsys.readouterr().out.splitlines()
    assert not [line for line in PAGE.splitlines() if line.startswith("| ") and line not in printed]
