"""What scripts/gpu-report runs on a machine, part by part, and what it makes of it."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from bounds import Bounds, Card, listed
from endpoint import Failed
from parts import PATIENCE, Parts, found, output
from transformers import Qwen2Config

from snb.precision import Device
from snb.settings import ROOT, Settings

SCRIPTS, FOLDER = ROOT / "scripts", Path(__file__).resolve().parent
PARTS = ("tests", "boots", "quality", "benchmark")
"""Those that can be chosen."""


@dataclass(frozen=True)
class Scale:
    """How much is run."""

    kind: str
    precisions: Sequence[str]
    """Best first; those that fit are taken."""
    paths: Sequence[str]
    """Values of SNB_PATH, each of which gets a boot."""
    texts: int
    levels: Sequence[int]
    workloads: Sequence[str]
    rounds: int

    @property
    def environment(self) -> dict[str, str]:
        """Of every program: one slot for each request at once, unless the operator says otherwise."""
        own = {"SNB_DEVICE": self.kind, "HF_HUB_DISABLE_PROGRESS_BARS": "1", **os.environ}
        return {"SNB_SLOTS": str(max(self.levels)), **own}


GPU = Scale(
    "cuda", ("bf16", "fp16", "int8", "nf4"), ("graphs", "eager"), 8, (1, 2, 4, 8, 16, 32), ("chat", "rag"), 3
)
CPU = Scale("cpu", ("fp32", "nf4"), ("shared", "eager"), 1, (1, 2), ("chat",), 1)


@dataclass
class Inspection:
    """One machine, part by part."""

    scale: Scale
    environment: Mapping[str, str]
    parts: Parts
    folder: Path
    """For files that pass from one program to the next."""

    def run(self, wanted: Sequence[str]) -> None:
        """The device first; without it, or without weights, there is little else to run."""
        device = self.parts.run("device", "", lambda: found([FOLDER / "device.py"], self.environment))
        if "tests" in wanted:
            self.parts.run("tests", "", self._tests)
        base = self.parts.run("weights", "", self._weights) if device else None
        if not base:
            return
        config = Qwen2Config.from_pretrained(base["base"], local_files_only=True)
        bounds = Bounds(config)
        fitting = partial(self._fitting, bounds, device)
        precisions = [line["precision"] for line in self.parts.run("precisions", "", fitting) if line["fits"]]
        if "boots" in wanted:
            self._boots(precisions)
        if "quality" in wanted:
            self._quality(precisions)
        if "benchmark" in wanted:
            self._benchmarks(precisions, bounds, device)

    def _tests(self) -> list[dict[str, str]]:
        """Name, outcome and reason of each test that needs a GPU."""
        results = self.folder / "tests.xml"
        command = ["-m", "pytest", "-m", "gpu", ROOT / "tests" / "test_gpu.py", f"--junitxml={results}"]
        output(command, self.environment, codes=(0, 1))
        return [outcome(case) for case in ElementTree.parse(results).iter("testcase")]

    def _weights(self) -> dict[str, str]:
        """The folder of each role."""
        lines = output([SCRIPTS / "download-weights"], self.environment).splitlines()
        return dict(line.split(" ", 1) for line in lines)

    def _fitting(self, bounds: Bounds, seen: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The precisions that the device computes in, and whether it has memory for them, with one slot."""
        fields = {name: seen[name] for name in ("kind", "name", "free", "total")}
        device = Device(**fields, capability=tuple(seen["capability"]))
        context = Settings.from_environment(self.environment).context
        other_half = {"bf16", "fp16"} - {device.half}
        lines = []
        for precision in (name for name in self.scale.precisions if name not in other_half):
            need = bounds.footprint.need(precision, 1, context).total
            fits = device.runs(precision) and need <= device.free
            lines.append({"precision": precision, "need": need, "fits": fits})
        return lines

    def _boots(self, precisions: Sequence[str]) -> None:
        for precision in precisions:
            for path in self.scale.paths:
                settings = {**self.environment, "SNB_PRECISION": precision, "SNB_PATH": path}
                boot = partial(found, [FOLDER / "boot.py"], settings)
                self.parts.run("boot", f"{precision}, {path}", boot)

    def _quality(self, precisions: Sequence[str]) -> None:
        """The first that works is the one that the others are compared with."""
        file = self.folder / "scores.pt"
        for precision in precisions:
            settings = {**self.environment, "SNB_PRECISION": precision, "SNB_SLOTS": "1"}
            task = "compare" if file.exists() else "write"
            command = [SCRIPTS / "preparing" / "quality.py", task, file, f"--texts={self.scale.texts}"]
            self.parts.run("quality", precision, partial(found, command, settings))

    def _benchmarks(self, precisions: Sequence[str], bounds: Bounds, device: Mapping[str, Any]) -> None:
        context = Settings.from_environment(self.environment).context
        for precision in precisions:
            settings = {**self.environment, "SNB_PRECISION": precision}
            kept = self.parts.run("benchmark", precision, partial(self._benchmark, settings))
            if not kept:
                continue
            left = device["free"] - bounds.footprint.weights(precision)
            slots = bounds.footprint.slots_within(left, precision, int(settings["SNB_SLOTS"]), context)
            compare = partial(beside, kept, precision, slots, bounds, device)
            self.parts.run("roofline", precision, compare)

    def _benchmark(self, settings: Mapping[str, str]) -> Any:
        """What scripts/benchmark keeps, failed requests included. Raises Failed where nothing was asked."""
        folder = self.folder / settings["SNB_PRECISION"]
        levels = ["--concurrency", *map(str, self.scale.levels), "--rounds", str(self.scale.rounds)]
        command = [SCRIPTS / "benchmark", "--workload", *self.scale.workloads, *levels, "--output", folder]
        output(command, settings, codes=(0, 1), patience=2 * PATIENCE)
        kept = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))
        if not kept["runs"]:
            raise Failed("; ".join(kept["faults"]))
        return kept


def outcome(case: ElementTree.Element) -> dict[str, str]:
    """One test of a JUnit file: a child's tag says what happened, if it did not pass."""
    child = next((part for part in case if part.tag in ("failure", "error", "skipped")), None)
    if child is None:
        return {"name": case.get("name", ""), "outcome": "passed", "reason": ""}
    return {"name": case.get("name", ""), "outcome": child.tag, "reason": child.get("message", "")}


def beside(
    kept: Mapping[str, Any], precision: str, slots: int, bounds: Bounds, device: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Tokens per second of a request after its first text, and the bounds of that, at each level.

    One bound is by the rates that this device reached in a copy and a product, the other by its datasheet.
    """
    reached = Card("measured", device["bandwidth"], device["flops"], 2 * device["flops"])
    cards = {"by_rates_here": reached, "by_datasheet": listed(device["name"], device["total"])}
    lines = []
    for figures in kept["figures"]:
        workload, pupils = figures["workload"], figures["pupils"]
        length, rows = mean_length(kept["runs"], workload, pupils), min(pupils, max(1, slots))
        if not length:
            continue
        steps = {
            name: 1 / bounds.decode(card, precision, rows, length).seconds if card else None
            for name, card in cards.items()
        }
        measured = figures["after_first_tokens_per_second"]
        asked = {"workload": workload, "pupils": pupils, "rows": rows, "length": length}
        lines.append({**asked, "measured": measured, **steps})
    return lines


def mean_length(runs: Sequence[Mapping[str, Any]], workload: str, pupils: int) -> int:
    """Tokens in the cache of a request, halfway through its answer; 0 where nothing was answered."""
    alike = (run for run in runs if (run["workload"], run["pupils"]) == (workload, pupils))
    answers = [answer for run in alike for answer in run["answers"] if not answer["failure"]]
    lengths = [a["metrics"].get("input_token_count", 0) + (a["reported"] or a["wanted"]) / 2 for a in answers]
    return round(sum(lengths) / len(lengths)) if lengths else 0
