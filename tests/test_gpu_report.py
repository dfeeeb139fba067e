"""scripts/gpu-report: really boots and measures on a CPU, keeps its deadline, gives nothing private away."""

import json
import os
import socket
import time
from importlib import metadata
from pathlib import Path

import environment
import pytest
from tokenizers import Tokenizer

from snb.philosophers import names, persona
from snb.settings import ROOT
from tests import scripts
from tools.benchmarking import gpu_report, random_weights
from tools.benchmarking.bars import bars
from tools.benchmarking.gpu_report import CPU, GPU, TABLES, Inspection
from tools.benchmarking.programs import GRACE, lines
from tools.benchmarking.report import Tables, publishable
from tools.endpoints.endpoint import Failed

pytestmark = pytest.mark.slow  # most tests run programs of their own


def test_without_a_gpu_it_says_so_and_that_there_is_another_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_report, "has_gpu", lambda: False)
    assert scripts.code("gpu-report") == 1
    assert "needs an NVIDIA GPU; --cpu" in capsys.readouterr().err


# Makes weights and boots, each in a program that imports torch.
def test_a_boot_on_a_cpu_is_measured_from_random_weights_to_both_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SNB_CONTEXT", "1536")
    options = ["--cpu", "--random", "--parts", "fp32", "--output", str(tmp_path)]
    assert scripts.code("gpu-report", *options) == 0
    written = (tmp_path / "report.json").read_text(encoding="utf-8")
    shown = (tmp_path / "report.md").read_text(encoding="utf-8")
    tables = json.loads(written)["tables"]
    assert [row["part"] for row in tables["parts"]] == ["weights", "fp32"]
    assert {*TABLES, "boot", "self-test", "machine"} < set(tables)
    assert all(f"## {name.capitalize()}\n" in shown for name in tables)
    [boot], [memory] = tables["boot"], tables["memory"]
    assert (boot["precision"], boot["slots"]) == ("fp32", 2)
    assert 0 < boot["imports_s"] < boot["ready_s"]
    parts = sum(memory[f"{part}_gib"] for part in ("weights", "cache", "margin"))
    assert parts == pytest.approx(memory["computed_gib"])
    assert [(row["slots"], row["filled"]) for row in tables["full"]] == [(2, 2)]
    assert all(row["over_products_and_cache"] > 0 < row["products_ms"] for row in tables["steps"])
    assert [row["rows"] for row in tables["throughput"]] == [1, 2]
    assert all(row["tokens_per_second"] > 0 for row in tables["throughput"] + tables["generate"])
    assert all(row["plain_largest_nats"] + row["engine_largest_nats"] < 1e-3 for row in tables["rounding"])
    for private in (str(ROOT), str(Path(os.environ.get("TMPDIR", "/tmp"))) + "/", socket.gethostname()):
        assert private not in written + shown


def test_a_part_that_fails_keeps_what_it_had_and_its_reason_and_the_next_one_runs(tmp_path: Path) -> None:
    inspection, kept = Inspection(tmp_path, "gpu-report"), tmp_path / "report.json"
    script = "import sys; print('{\"steps\": [{\"rows\": 2}]}', flush=True); sys.exit('CUDA out of memory')"
    inspection.part("bf16", 1, lambda until: map(json.loads, lines(["-c", script], {}, until)))
    inspection.part("nf4", 1, lambda _: [{"steps": [{"rows": 1, "alone_ms": 12.812}]}])
    document = json.loads(kept.read_text())
    assert [row["outcome"] for row in document["tables"]["parts"]] == ["CUDA out of memory", "done"]
    assert document["failures"] == {"bf16": "CUDA out of memory"}
    shown = (tmp_path / "report.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown]
    assert ["bf16", "2", "–"] in cells  # in the same table as the next
    assert ["nf4", "1", "12.81"] in cells


def test_a_part_that_hangs_is_ended_in_its_time_and_one_that_would_not_fit_is_left_out(
    tmp_path: Path,
) -> None:
    inspection = Inspection(tmp_path, "gpu-report", deadline=time.monotonic() + 5)
    script = "import sys, time; print('capturing', file=sys.stderr, flush=True); time.sleep(600)"
    inspection.part("hangs", 0, lambda until: ({} for _ in lines(["-c", script], {}, until)))
    inspection.part("long", 1, lambda _: [{"never": []}])
    assert "no end after 5 s" in inspection.failures["hangs"]
    assert inspection.failures["long"].startswith("left out:")
    assert "never" not in inspection.tables


def test_bars_hold_each_figure_of_a_boot_in_bf16_against_what_it_should_be() -> None:
    served = {"server": "ours", "kind": "at once"}
    tables: Tables = {
        "steps": [
            *({"part": "bf16", "rows": rows, "over_products_and_cache": 1.2} for rows in (1, 2, 16)),
            {"part": "fused", "rows": 32, "over_products_and_cache": 1.3},
        ],
        "prefill": [
            {"part": part, "tokens": 64, "measured_ms": taken}
            for part, taken in (("bf16", 42.0), ("fused", 9.0))
        ],
        "throughput": [
            {"part": "bf16", "rows": rows, "tokens_per_second": 50.0 * rows, "over_rows_per_step": 0.9}
            for rows in (1, 16)
        ],
        "server": [
            {**served, "part": part, "pupils": n, "tokens_per_second_in_all": 46.0 * n}
            for part, n in (("server", 1), ("server", 16), ("server fp8", 32))
        ]
        + [{**served, "part": "server", "kind": "class", "last_first_text_s": None}],
    }
    assert [(row["measured"], row["wanted"], row["met"]) for row in bars(tables)] == [
        *[(1.2, "at most 1.25", "yes")] * 2,
        (42.0, "at most 25", "no"),
        (0.9, "at least 0.93", "no"),
        (1.3, "at most 1.25", "no"),
        (9.0, "at most 25", "yes"),
        (46.0, "at least 100", "no"),
        (0.92, "at least 0.9", "yes"),
        (None, "at most 0.8", "no"),  # one pupil's text never came
        (1472.0, "at least 3200", "no"),
    ]
    assert len({row["bar"] for row in bars(tables)}) == len(list(bars(tables)))
    assert not list(bars({**tables, "steps": []}))


def test_exit_codes_that_are_expected_are_no_failure() -> None:
    assert list(lines(["-c", "print('failed'); raise SystemExit(1)"], {}, codes=(0, 1))) == ["failed"]
    with pytest.raises(Failed, match="ended with code 3"):
        list(lines(["-c", "raise SystemExit(3)"], {}))


def test_the_parts_of_a_gpu_fit_nine_minutes() -> None:
    names = [task.name for task in GPU]
    assert sum(task.seconds for task in GPU[: names.index("server fused")]) + GRACE <= 9 * 60


def test_outcomes_and_reasons_of_tests_are_read_from_what_pytest_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_gpu.py").write_text(
        "import pytest\npytestmark = pytest.mark.gpu\ndef test_a(): pass\n"
        "def test_b(): assert 1 == 2, 'NaN'\n@pytest.mark.skip(reason='no card')\ndef test_c(): pass\n"
    )
    monkeypatch.setattr(gpu_report, "ROOT", tmp_path)
    inspection = Inspection(tmp_path, "gpu-report")
    inspection.run([task for task in CPU if task.name == "tests"])
    assert inspection.failures["tests"].endswith("::test_b - AssertionError: NaN")
    shown = [row["test"].rpartition("::")[2].split()[:2] for row in inspection.tables["tests"]]
    assert shown[:3] == [["test_a", "PASSED"], ["test_b", "FAILED"], ["test_c", "SKIPPED"]]


def test_folders_hosts_and_tokens_are_left_out_and_units_are_not() -> None:
    where = f"/root/x.so at {socket.gethostname()}: hf_abcdefghij"
    line = f'File "/home/eva/project/snb/merge.py", line 3\n{where}'
    wanted = {"log": [[1.5, 'File "merge.py", line 3\nx.so at [host]: [token]']]}
    assert publishable({"log": [(1.5, line)]}) == wanted
    kept = "12 tokens/s, 3 GB/s and/or 1 / 2, weights/base"
    assert publishable(kept) == kept


def test_as_is_goes_on_and_names_each_version_that_differs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    present = metadata.version("tokenizers")
    wanted = {"pytest": "0.1", "absent-package": "2", "tokenizers[testing]": present}
    monkeypatch.setattr(environment, "wanted", lambda: wanted)
    monkeypatch.setenv("AS_IS", "1")
    environment.enter()
    stated = f"AS_IS: pytest {pytest.__version__}, pinned 0.1; absent-package absent, pinned 2\n"
    assert capsys.readouterr().err == stated


def test_random_weights_have_the_special_tokens_of_qwen_and_personas_as_long(tmp_path: Path) -> None:
    config = random_weights.configuration({})
    random_weights.write_tokenizer(tmp_path, config.bos_token_id)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [tokenizer.token_to_id(token) for token in random_weights.TOKENS] == [151643, 151644, 151645]
    assert config.eos_token_id == [151645, 151643]
    assert all(750 < len(tokenizer.encode(persona(name)).ids) < 850 for name in names())
