"""scripts/costs: bills against sums done by hand, and prices that say when and where they were read."""

import dataclasses
import json
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import bill
import pytest
from bill import Demonstration, Machine
from bounds import QWEN_14B, Bounds
from cards import BY_NAME
from prices import ACTIVE, HOUR, MONTH, SECOND, BadPrices, Option, Prices, read
from speed import BadBenchmark, Computed, Measured, Work, from_benchmark

from snb.precision import choose
from snb.settings import ROOT, Settings

WORK = Work(prompt=874, answer=150)
CLASS = Demonstration(hours=3, pupils=30, questions=5, work=WORK)


@dataclass(frozen=True)
class Steady:
    """Four at once, in 10 s; alone in 6 s; two or three in 8 s."""

    at_once: int = 4
    measured: bool = False

    def together(self, rows: int, work: Work) -> float:
        return {1: 6.0, 4: 10.0}.get(rows, 8.0)


def rented(unit: str, price: float, **others: object) -> Machine:
    """A machine of 100 s boot and 300 s idling at so many dollars a unit."""
    option = Option("a", "a host", "a card", "T4", unit, price, "USD", "2026-11", "https://a.example")
    option = dataclasses.replace(option, **others)  # type: ignore[arg-type]
    return Machine(option, "nf4", 0, Steady(), boot=100.0, idle=300.0)


@pytest.fixture(scope="module")
def prices() -> Prices:
    return read()


def test_every_price_says_when_and_where_it_was_read(prices: Prices) -> None:
    assert len(prices.options) > 20
    for option in prices.options:
        assert option.read.startswith("2026-"), option.key
        assert option.source.startswith("https://"), option.key
        assert option.price > 0, option.key


def test_every_card_has_a_datasheet_and_plausible_rates() -> None:
    for card in BY_NAME.values():
        assert "https://" in card.source or "NVIDIA" in card.source
        assert 1.5 <= card.int8 / card.half <= 4.1, card.name
        assert card.capability > (0, 0), card.name
        assert 14 < card.gib < 80, card.name


def test_three_hours_at_thirty_cents_are_ninety_cents(prices: Prices) -> None:
    found = {option.key: option for option in prices.options}
    machine = dataclasses.replace(rented(HOUR, 1), option=found["vast-3090"])
    assert bill.demonstration(machine, CLASS) == pytest.approx(0.90)


def test_an_answer_at_the_published_eager_speed_lies_within_the_plans_range(prices: Prices) -> None:
    a100 = next(option for option in prices.options if option.key == "replicate-a100-public")
    eager = Measured({1: 24.7})  # tokens/s of Qwen2.5-14B in bf16 on an A100, as Qwen publishes it
    seconds = eager.together(1, WORK)
    assert seconds == pytest.approx(150 / 24.7)
    assert seconds * a100.per_second == pytest.approx(0.0085, abs=0.0001)
    assert 0.002 <= seconds * a100.per_second <= 0.01


def test_the_least_that_an_answer_can_cost_is_below_that_on_a_t4_and_within_it_on_larger_cards(
    prices: Prices,
) -> None:
    found = {option.key: option for option in prices.options}
    bounds = Bounds(QWEN_14B)
    cost = {}
    for name in ("t4", "l40s", "a100"):
        option = found[f"replicate-{name}-public"]
        card = BY_NAME[option.card]
        speed = Computed(bounds, card, choose(QWEN_14B, Settings(), card.device))
        cost[name] = speed.together(1, WORK) * option.per_second
    # T4: 874 tokens of 2 × 13.2e9 operations at 65e12 are 0.37 s, 150 steps of 8.6 GB at 320 GB/s 4.0 s.
    assert cost["t4"] == pytest.approx((0.37 + 4.0) * 0.000225, rel=0.02)
    assert cost["l40s"] == pytest.approx((0.07 + 150 * 28.2 / 864) * 0.000975, rel=0.02)
    assert cost["t4"] < 0.002 < cost["a100"] < cost["l40s"] < 0.01


def test_pupils_who_ask_at_once_come_in_waves_as_wide_as_the_slots() -> None:
    machine = rented(ACTIVE, 0.001)
    assert machine.together(30, WORK) == 7 * 10 + 8  # seven waves of four and one of two
    assert machine.together(4, WORK) == 10
    assert machine.together(1, WORK) == 6
    assert machine.capacity(WORK) == 3600 / 10 * 4


def test_a_demonstration_is_charged_as_each_host_charges() -> None:
    assert bill.demonstration(rented(ACTIVE, 0.001), CLASS) == pytest.approx(5 * 78 * 0.001)
    assert bill.demonstration(rented(SECOND, 0.001), CLASS) == pytest.approx((3 * 3600 + 300) * 0.001)
    assert bill.demonstration(rented(HOUR, 0.40), CLASS) == pytest.approx(1.20)
    fee = {"setup_fee": 50.0, "currency": "EUR", "dollars_each": 1.2}
    assert bill.demonstration(rented(MONTH, 200, **fee), CLASS) == pytest.approx(250 * 1.2)


def test_answers_that_do_not_share_their_seconds_cost_as_many_times_more() -> None:
    each = 7 * 4 * 10 + 2 * 8  # four answers of each full wave pay its 10 s, two their 8 s
    assert bill.demonstration_at_most(rented(ACTIVE, 0.001), CLASS) == pytest.approx(5 * each * 0.001)
    assert bill.demonstration_at_most(rented(HOUR, 0.40), CLASS) == pytest.approx(1.20)


def test_a_month_adds_single_requests_that_wake_a_sleeping_instance() -> None:
    public, private = rented(ACTIVE, 0.001), rented(SECOND, 0.001)
    assert bill.month(public, CLASS, 4, 2) == pytest.approx((4 * 390 + 60 * 6) * 0.001)
    woken = 4 * (3 * 3600 + 300) + 60 * (100 + 6 + 300)
    assert bill.month(private, CLASS, 4, 2) == pytest.approx(woken * 0.001)
    always = 730 * 3600 * 0.001
    assert bill.month(private, CLASS, 4, 1000) == pytest.approx(always)


def test_a_machine_by_the_hour_sleeps_only_when_nobody_asks_between() -> None:
    machine = rented(HOUR, 0.40)
    assert bill.month(machine, CLASS, 4, 0) == pytest.approx(4 * 1.20)
    assert bill.month(machine, CLASS, 4, 1) == pytest.approx(730 * 0.40)
    assert bill.month(rented(MONTH, 200), CLASS, 4, 1) == 200


def test_ways_to_pay_cross_where_both_cost_the_same() -> None:
    public, private, hourly = rented(ACTIVE, 0.001), rented(SECOND, 0.001), rented(HOUR, 0.60)
    at = bill.crossing(public, hourly, WORK)
    assert at == pytest.approx(0.60 / 0.006)
    assert bill.hourly(public, at, WORK) == pytest.approx(bill.hourly(hourly, at, WORK))
    assert bill.crossing(private, hourly, WORK) == pytest.approx(0.60 / 0.406)
    assert bill.hourly(private, 3, WORK) == pytest.approx(3 * 0.406)
    assert bill.hourly(private, 20, WORK) == pytest.approx(3.60)  # it never sleeps
    monthly = rented(MONTH, 219)
    assert bill.crossing(public, monthly, WORK) == pytest.approx(0.30 / 0.006)
    assert bill.hours_of_month(hourly, monthly) == pytest.approx(365)


def test_what_never_gets_cheaper_crosses_nowhere() -> None:
    dear = rented(HOUR, 4.0)  # an instance that is up all hour costs 3.60
    assert bill.crossing(rented(SECOND, 0.001), dear, WORK) is None
    slow = rented(HOUR, 10.0)  # 1667 requests for 10 dollars, and the machine answers 1440
    assert bill.crossing(rented(ACTIVE, 0.001), slow, WORK) is None
    assert bill.hours_of_month(rented(HOUR, 0.20), rented(MONTH, 200)) is None


def test_unpacking_counts_from_five_rows_of_nf4_on() -> None:
    card = BY_NAME["L4"]
    bounds = Bounds(QWEN_14B)
    choice = choose(QWEN_14B, Settings(precision="nf4"), card.device)
    speed = Computed(bounds, card, choice)
    steps = bounds.decode(card, "nf4", 5, 874 + 75, unpacked=True).seconds * 150
    assert speed.together(5, WORK) == pytest.approx(5 * bounds.prefill(card, "nf4", 874) + steps)
    steps = bounds.decode(card, "nf4", 4, 874 + 75).seconds * 150
    assert speed.together(4, WORK) == pytest.approx(4 * bounds.prefill(card, "nf4", 874) + steps)


def benchmark(file: Path, *levels: tuple[int, float | None, int]) -> Path:
    """A file like that of scripts/benchmark: requests at once, rate and failures."""
    each = [
        {
            "server": "ours",
            "workload": "chat",
            "kind": "at once",
            "pupils": n,
            "tokens_per_second": rate,
            "failures": lost,
        }
        for n, rate, lost in levels
    ]
    other = {**each[0], "server": "vllm", "pupils": 64, "tokens_per_second": 9999.0}
    file.write_text(json.dumps({"figures": [{**each[0], "kind": "warm"}, *each, other]}), encoding="utf-8")
    return file


def test_a_benchmark_gives_the_rate_of_the_level_at_or_below(tmp_path: Path) -> None:
    speed = from_benchmark(benchmark(tmp_path / "b.json", (1, 30.0, 0), (4, 100.0, 0), (8, 150.0, 1)))
    assert speed.at_once == 4  # at 8 a request failed; 64 is another server's
    assert speed.measured
    assert speed.together(1, WORK) == pytest.approx(150 / 30)
    assert speed.together(3, WORK) == pytest.approx(3 * 150 / 30)
    assert speed.together(4, WORK) == pytest.approx(4 * 150 / 100)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"figures": 3}', '{"figures": []}', '{"figures": [{"kind": 1}]}']
)
def test_a_file_without_a_speed_is_refused_with_a_cure(tmp_path: Path, text: str) -> None:
    file = tmp_path / "b.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadBenchmark, match="scripts/benchmark --output"):
        from_benchmark(file)


def test_prices_name_every_fault_at_once(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    text = (ROOT / "scripts" / "prices.toml").read_text(encoding="utf-8")
    broken = text.replace('unit = "month"', 'unit = "week"', 1).replace("price = 0.30", "price = -1")
    broken = broken.replace('read = "2026-11"', 'read = "lately"', 2).replace("idle_minutes = 5.0", "")
    file.write_text(broken + '\ncolour = "blue"\n', encoding="utf-8")
    with pytest.raises(BadPrices) as refused:
        read(file)
    said = str(refused.value)
    for fault in (
        "ovh-l4-month: unit is one of active second, second, hour, month",
        "vast-3090: price must be a number above 0",
        "exchange: read must be a date",
        "replicate-t4-public: read must be a date",
        "assumptions.idle_minutes",
        "azure-t4 has fields that do not exist: colour",
    ):
        assert fault in said


def test_prices_that_are_no_toml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadPrices, match=r"absent\.toml"):
        read(tmp_path / "absent.toml")
    (tmp_path / "prices.toml").write_text("price 3", encoding="utf-8")
    with pytest.raises(BadPrices, match=r"prices\.toml"):
        read(tmp_path / "prices.toml")
    (tmp_path / "prices.toml").write_text("exchange = 3\n[options]\na = 1\n[assumptions]", encoding="utf-8")
    with pytest.raises(BadPrices, match=r"no table \[exchange\]; there is no table \[assumptions\]"):
        read(tmp_path / "prices.toml")


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    """Runs the script in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["costs", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / "costs"), run_name="__main__")
    return ended.value.code


def cells(shown: str) -> list[list[str]]:
    """The rows of the tables."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines()]
    return [row for row in rows if row]


def test_the_command_prices_a_demonstration_and_says_what_is_computed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["demonstration", "--hours", "3", "--pupils", "30", "--questions", "5"]
    assert command(monkeypatch, *arguments) == 0
    shown = capsys.readouterr().out
    rows = {(row[0], row[1], row[2]): row[3:] for row in cells(shown)}
    assert rows["Vast.ai", "RTX 3090", "$0.20–0.30/h"][:2] == ["computed", "$0.90"]
    assert rows["Hetzner", "a card of 24 GB", "€214.00/month"][1] == "$246.10 + setup fee"
    assert rows["Replicate, private or deployment", "T4", "$0.000225/s"][1] == "$2.50"  # 11,100 s
    assert "150 requests" in shown
    assert "One euro is $1.15" in shown


def test_a_benchmark_of_a_card_replaces_what_is_computed_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = benchmark(tmp_path / "b.json", (1, 20.0, 0))
    chosen = ["--benchmark", str(file), "--card", "T4", "--only", "huggingface"]
    assert command(monkeypatch, "request", "--tokens", "100", *chosen) == 0
    shown = capsys.readouterr().out
    rows = {row[1]: row[4:] for row in cells(shown)}
    assert rows["T4 small"][:2] == ["measured", "5.0 s, $0.00056"]  # 100 tokens at 20/s, 40 cents an hour
    assert rows["L4"][0] == "computed"
    assert command(monkeypatch, "request", "--benchmark", str(file)) == 2
    assert "--card" in capsys.readouterr().err


def test_what_does_not_fit_is_named_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "options", "--precision", "bf16") == 0
    shown = capsys.readouterr().out
    kept = {row[0] for row in cells(shown)}
    assert "replicate-l40s-public" in kept
    assert "replicate-t4-public" not in kept
    assert "Left out: replicate-t4-public: DEVICE_UNUSABLE" in shown
    assert "Left out: runpod-3090: OUT_OF_MEMORY" in shown


def test_the_plot_of_crossing_points_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(monkeypatch, "break-even", "--plot", str(tmp_path / "costs.svg")) == 0
    rows = {(row[0], row[1]): row[3:] for row in cells(capsys.readouterr().out) if len(row) == 6}
    assert rows["Hugging Face Space", "L40S"][0] == "118"  # 184 € × 1.15 / 1.80 $
    drawn = (tmp_path / "costs.svg").read_text(encoding="utf-8")
    assert "<svg" in drawn
    assert drawn.count("<!-- 118 -->") == 1


def test_nothing_to_show_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "options", "--only", "nowhere") == 1
    assert "scripts/costs options" in capsys.readouterr().err
    assert command(monkeypatch, "demonstration", "--hours", "0") == 2
