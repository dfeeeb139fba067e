"""scripts/roofline: bounds against figures worked out by hand from the sizes of Qwen2.5-14B."""

import json
import runpy
import sys

import pytest
from bounds import CARDS, QWEN_14B, Bounds, Card
from tiny import tiny_config
from transformers import Qwen2ForCausalLM

from snb.settings import ROOT

T4, L40S, A100, H100 = CARDS
BOUNDS = Bounds(QWEN_14B)
HEAD = 152064 * 5120
LAYER = 5120 * 5120 * 2 + 5120 * 1024 * 2 + 5120 * 13824 * 3
"""Weights of the matrices of a layer: query and output, keys and values, gate, up and down."""
ROW = 2 * 48 * 8 * 128 * 2
"""Bytes of a token in the cache: keys and values, layers, heads, width, 16 bits."""


def test_a_step_alone_reads_all_weights_but_the_looked_up_embedding_once() -> None:
    step = BOUNDS.decode(A100, "bf16", rows=1, length=0)
    assert step.bytes == pytest.approx(2 * (48 * LAYER + HEAD), rel=1e-4)
    assert step.seconds == step.bytes / 2039e9
    assert step.tokens_per_second == pytest.approx(72.9, abs=0.1)


def test_each_row_adds_its_cache_and_nothing_of_the_weights() -> None:
    one, sixteen = (BOUNDS.decode(A100, "bf16", rows, length=1000) for rows in (1, 16))
    assert sixteen.bytes - one.bytes == 15 * 1000 * ROW
    assert sixteen.seconds / one.seconds == pytest.approx(1.1, abs=0.01)


def test_unpacked_nf4_writes_and_reads_every_matrix_in_16_bits() -> None:
    packed, unpacked = (BOUNDS.decode(T4, "nf4", 4, 100, unpacked) for unpacked in (False, True))
    assert unpacked.bytes - packed.bytes == 2 * 2 * 48 * LAYER
    assert packed.seconds == packed.bytes / T4.bandwidth


def test_a_step_of_many_rows_is_bound_by_the_tensor_cores() -> None:
    weak = Card("weak", bandwidth=1e15, half=1e12, int8=2e12)
    step = BOUNDS.decode(weak, "bf16", rows=8, length=100)
    attention = 8 * 100 * 4 * 48 * 40 * 128
    assert step.flops == 8 * 2 * (48 * LAYER + HEAD) + attention
    assert step.seconds == pytest.approx(step.flops / 1e12)
    faster = 8 * 2 * 48 * LAYER / 2e12 + (8 * 2 * HEAD + attention) / 1e12
    assert BOUNDS.decode(weak, "int8", rows=8, length=100).seconds == pytest.approx(faster)


def test_a_prompt_costs_two_operations_a_weight_and_token_and_its_pairs() -> None:
    seconds = BOUNDS.prefill(T4, "nf4", tokens=1000)
    pairs = 1000 * 1001 / 2
    flops = 1000 * 2 * 48 * LAYER + pairs * 4 * 48 * 40 * 128 + 2 * HEAD
    assert seconds == pytest.approx(flops / 65e12)
    alone = BOUNDS.prefill(T4, "nf4", tokens=300, cached=700)
    fewer_pairs = 300 * 700 + 300 * 301 / 2
    assert alone == pytest.approx((300 * 2 * 48 * LAYER + fewer_pairs * 4 * 48 * 40 * 128 + 2 * HEAD) / 65e12)


def test_a_short_prompt_takes_as_long_as_reading_the_weights_once() -> None:
    one_step = BOUNDS.decode(H100, "bf16", rows=1, length=0)
    assert BOUNDS.prefill(H100, "bf16", tokens=10) == pytest.approx(one_step.seconds)
    assert BOUNDS.prefill(Card("slow memory", 1e9, 1e18, 1e18), "bf16", 513) == pytest.approx(
        2 * one_step.bytes / 1e9
    )


def test_a_tied_embedding_is_read_as_the_output_embedding() -> None:
    for tied in (False, True):
        config = tiny_config(tie_word_embeddings=tied)
        model = Qwen2ForCausalLM(config)
        read = sum(p.nbytes for name, p in model.named_parameters() if tied or "embed" not in name)
        buffers = sum(buffer.nbytes for buffer in model.buffers())
        assert Bounds(config).decode(T4, "fp32", rows=1, length=0).bytes == read + buffers


@pytest.mark.parametrize(
    ("card", "precision", "rows", "fits"),
    [
        (T4, "bf16", 1, False),
        (T4, "nf4", 3, True),
        (T4, "nf4", 4, False),
        (L40S, "bf16", 16, True),
        (L40S, "bf16", 32, False),
        (H100, "bf16", 32, True),
    ],
)
def test_a_card_holds_what_the_loader_would_find_room_for(
    card: Card, precision: str, rows: int, fits: bool
) -> None:
    assert BOUNDS.fits(card, precision, rows, context=4096) == fits


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    """Runs the script in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["roofline", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / "roofline"), run_name="__main__")
    return ended.value.code


def test_the_command_tells_what_fits_and_that_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "--json", "--concurrency", "1", "16") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["measured"] is False
    assert all("NVIDIA" in card["source"] for card in document["cards"])
    lines = {
        (one["card"], one["precision"], one["unpacked"], one["step"]["rows"]) for one in document["lines"]
    }
    assert {key[1:] for key in lines if key[0] == "T4"} == {("nf4", False, 1)}
    assert {key[1:] for key in lines if key[0] == "L40S"} == {
        ("bf16", False, 1),
        ("bf16", False, 16),
        ("nf4", False, 1),
        ("nf4", False, 16),
        ("nf4", True, 16),
    }
    alone = next(one for one in document["lines"] if one["card"] == "T4")
    assert alone["answer_price"] == pytest.approx(0.000225 * alone["answer_seconds"])


def test_the_table_has_a_dash_where_slots_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "--concurrency", "1", "32") == 0
    shown = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines()]
    cells = {(row[0], row[1]): row[2:] for row in rows if len(row) > 2}
    assert cells["L40S", "bf16"][:3] == ["28.2", "31", "–"]
    assert "Computed, not measured" in shown


def test_lengths_outside_the_context_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "--context-tokens", "100") == 2
    assert "from 151 to 4096" in capsys.readouterr().err
