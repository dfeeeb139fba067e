"""scripts/gpu-report: failed parts leave the others alone, nothing private is written, figures are right."""

import json
import os
import runpy
import socket
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import environment
import pytest
import quality
import report
import torch
from bounds import CARDS, Bounds
from endpoint import Failed
from inspection import GPU, Inspection, beside, outcome
from parts import Parts, anonymous, found, output
from tiny import save_tiny, tiny_config

from snb.loader import load
from snb.settings import ROOT, Settings


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base"), max_position_embeddings=4096)


def forget(parts: Parts) -> None:
    """Keeps nothing."""


# The command


def test_without_a_gpu_it_says_so_and_that_there_is_another_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "has_gpu", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu-report"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / "gpu-report"), run_name="__main__")
    assert ended.value.code == 1
    assert "needs an NVIDIA GPU; --cpu" in capsys.readouterr().err


def test_a_report_of_a_cpu_holds_every_precision_and_names_no_folder(base: Path, tmp_path: Path) -> None:
    settings = {**os.environ, "SNB_BASE_MODEL": str(base), "SNB_ADAPTER": "none"}
    command = [sys.executable, str(ROOT / "scripts" / "gpu-report"), "--cpu", "--parts", "quality"]
    subprocess.run([*command, "--output", str(tmp_path)], env=settings, check=True, capture_output=True)
    written = (tmp_path / "report.json").read_text(encoding="utf-8")
    parts = {(part["name"], part["of"]): part for part in json.loads(written)["parts"]}
    assert not [part["failure"] for part in parts.values() if part["failure"]]
    assert parts["device", ""]["found"]["bandwidth"] > 1e8
    assert parts["quality", "fp32"]["found"]["mean_divergence"] is None
    assert 0 < parts["quality", "nf4"]["found"]["mean_divergence"] < 2
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| fp32 " in markdown
    assert "## Quality" in markdown
    for private in (str(ROOT), str(base.parent), socket.gethostname()):
        assert private not in written + markdown


# Parts


def test_a_part_that_fails_is_recorded_with_its_reason_and_the_next_one_runs(tmp_path: Path) -> None:
    parts = Parts(lambda parts: report.keep(parts, tmp_path))
    script = "import sys; sys.exit('CUDA out of memory in /opt/secret/model.py')"
    assert parts.run("boot", "bf16, graphs", lambda: found(["-c", script], os.environ)) is None
    assert parts.run("weights", "", lambda: found(["-c", "print('…'); print('[1]')"], os.environ)) == [1]
    first, second = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["parts"]
    assert (first["found"], first["failure"]) == (None, "CUDA out of memory in model.py")
    assert (second["found"], second["failure"]) == ([1], "")


def test_a_program_that_hangs_is_ended_and_its_last_words_are_kept() -> None:
    script = "import sys, time; print('capturing', file=sys.stderr, flush=True); time.sleep(600)"
    began = time.monotonic()
    with pytest.raises(Failed, match=r"no end after 1 s: capturing"):
        output(["-c", script], os.environ, patience=1)
    assert time.monotonic() - began < 60


def test_exit_codes_that_are_expected_are_no_failure() -> None:
    assert output(["-c", "print('tests failed'); raise SystemExit(1)"], os.environ, codes=(0, 1))
    with pytest.raises(Failed, match="ended with code 3"):
        output(["-c", "raise SystemExit(3)"], os.environ, codes=(0, 1))


def test_folders_hosts_and_tokens_are_left_out_and_units_are_not() -> None:
    said = (
        f'File "/home/eva/project/snb/merge.py", line 3\n/root/x.so at {socket.gethostname()}: hf_abcdefghij'
    )
    assert anonymous({"log": [(1.5, said)]}) == {
        "log": [[1.5, 'File "merge.py", line 3\nx.so at [host]: [token]']]
    }
    kept = "12 tokens/s, 3 GB/s and/or 1 / 2, weights/base"
    assert anonymous(kept) == kept


def test_outcomes_are_read_from_a_junit_file() -> None:
    text = (
        "<suite><testcase name='a'/><testcase name='b'><failure message='NaN'/></testcase>"
        "<testcase name='c'><system-out/><skipped message='needs an NVIDIA GPU'/></testcase></suite>"
    )
    outcomes = [tuple(outcome(case).values()) for case in ElementTree.fromstring(text).iter("testcase")]
    expected = [("a", "passed", ""), ("b", "failure", "NaN"), ("c", "skipped", "needs an NVIDIA GPU")]
    assert outcomes == expected


# Figures


def test_precisions_are_those_that_the_card_computes_in_and_holds(tmp_path: Path) -> None:
    inspection = Inspection(GPU, {}, Parts(forget), tmp_path)
    seen = {"kind": "cuda", "name": "Tesla T4", "capability": [7, 5], "free": 10**9, "total": 16 * 10**9}
    lines = inspection._fitting(Bounds(tiny_config()), seen)
    assert [line["precision"] for line in lines] == ["fp16", "int8", "nf4"]
    assert not any(line["fits"] for line in lines)
    roomy = inspection._fitting(Bounds(tiny_config()), {**seen, "free": 4 * 10**9})
    assert all(line["fits"] for line in roomy)


def test_what_was_measured_stands_beside_the_bound_of_as_many_rows_as_there_were_slots() -> None:
    answers = [
        {"failure": "", "metrics": {"input_token_count": 100}, "reported": 40, "wanted": 64},
        {"failure": "", "metrics": {"input_token_count": 140}, "reported": None, "wanted": 80},
        {"failure": "409", "metrics": {}, "reported": None, "wanted": 64},
    ]
    figures = {"workload": "chat", "pupils": 8, "after_first_tokens_per_second": 20.0}
    kept = {
        "figures": [figures, {**figures, "pupils": 2}],
        "runs": [{"workload": "chat", "pupils": 8, "answers": answers}],
    }
    device = {"name": "Tesla T4", "total": 16 * 10**9, "bandwidth": 1e9, "flops": 1e12}
    bounds = Bounds(tiny_config())
    [line] = beside(kept, "bf16", 4, bounds, device)
    assert (line["rows"], line["length"], line["measured"]) == (4, 150, 20.0)
    read = bounds.decode(CARDS[0], "bf16", 4, 150).bytes
    assert line["by_rates_here"] == pytest.approx(1e9 / read)
    assert line["by_datasheet"] == pytest.approx(320e9 / read)
    assert beside(kept, "bf16", 4, bounds, {**device, "name": "NVIDIA L4"})[0]["by_datasheet"] is None


def test_scores_are_those_from_which_the_answer_is_taken(base: Path) -> None:
    settings = Settings(base_model=str(base), adapter="none", device="cpu", precision="fp32")
    loaded = load(settings)
    [(prompt, answer)] = list(quality.texts(loaded, 1, settings.context))
    assert loaded.tokenizer.decode(answer) in quality.TEXTS[0]["answer"]
    scores = quality.scores(loaded, prompt, answer)
    ids = torch.tensor([prompt + answer])
    labels = torch.tensor([[-100] * len(prompt) + answer])
    with torch.inference_mode():
        loss = loaded.model(ids, labels=labels).loss.item()
    assert quality.quality([scores], [answer]).loss == pytest.approx(loss, rel=1e-5)


def test_a_quality_compares_distributions_and_the_likeliest_tokens() -> None:
    own = [torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])]
    other = [torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]])]
    compared = quality.quality(own, [[0, 1]], other)
    probabilities = torch.tensor([0.0, 1.0, 0.0]).softmax(0)
    expected = float(probabilities[1] - probabilities[0])  # the logarithms differ by 1 at two tokens
    assert compared.mean_divergence == pytest.approx(expected / 2)
    assert compared.worst_divergence == pytest.approx(expected)
    assert compared.same_choice == 0.5


def test_a_boot_is_shown_with_the_path_it_took_and_its_log() -> None:
    parts = Parts(forget)
    log = [(0.5, "decode path graphs fails here"), (1.0, "decode path: eager")]
    answer = {"time_to_first_token": 0.1, "tokens_per_second": 30.0}
    memory = {"reserved": 3 * 2**30, "in_use": 4 * 2**30, "host": 2**30}
    parts.run("boot", "nf4, graphs", lambda: {"seconds": 9.0, "log": log, "answer": answer, "memory": memory})
    parts.run("boot", "bf16, graphs", lambda: found(["-c", "1/0"], os.environ))
    markdown = report.markdown(parts)
    row = next(line for line in markdown.splitlines() if line.startswith("| nf4, graphs"))
    assert [cell.strip() for cell in row.split("|")[2:-1]] == [
        "eager",
        "9.0",
        "3.0",
        "4.0",
        "1.0",
        "0.10",
        "30.0",
    ]
    assert "    0.5 s  decode path graphs fails here" in markdown
    assert "ZeroDivisionError" in markdown.partition("## Failed")[2]
