"""The two files of a report: all that was found as JSON, and the figures of it as Markdown."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark_table import number, table
from parts import Part, Parts, anonymous, plain

GIB = 1024**3


def keep(parts: Parts, folder: Path) -> None:
    """Writes both files anew."""
    folder.mkdir(parents=True, exist_ok=True)
    document = json.dumps(anonymous(parts.document()), ensure_ascii=False)
    (folder / "report.json").write_text(document + "\n", encoding="utf-8")
    (folder / "report.md").write_text(plain(markdown(parts)), encoding="utf-8")


def markdown(parts: Parts) -> str:
    """Every part that found something, then those that failed."""
    date = parts.document()["date"]
    sections = [f"# What a GPU shows\n\n{date}. Measured, where nothing else is said."]
    for name, write in SECTIONS.items():
        whole = [part for part in parts.of(name) if part.found is not None]
        if whole:
            sections.append(f"## {name.capitalize()}\n\n{write(whole)}")
    if failed := [part for part in parts.done if part.failure]:
        lines = (f"### {part.name} {part.of}\n\n```\n{part.failure}\n```" for part in failed)
        sections.append("## Failed\n\n" + "\n\n".join(lines))
    return "\n\n".join(sections) + "\n"


def device(parts: Sequence[Part]) -> str:
    """The machine."""
    seen = parts[0].found
    capability = ".".join(map(str, seen["capability"]))
    rows = [
        ["device", f"{seen['name']}, compute capability {capability}"],
        ["memory", f"{gib(seen['free'])} of {gib(seen['total'])} GiB free"],
        ["driver, torch, CUDA", f"{seen['driver']}, {seen['torch']}, {seen['cuda']}"],
        ["a copy moves", f"{number(seen['bandwidth'] / 1e9, 0)} GB/s"],
        ["a product does", f"{number(seen['flops'] / 1e12, 1)} TFLOP/s"],
    ]
    return table(("", ""), rows)


def precisions(parts: Sequence[Part]) -> str:
    """What each needs, computed, and whether it is run."""
    rows = [
        [line["precision"], gib(line["need"]), "yes" if line["fits"] else "no"] for line in parts[0].found
    ]
    return table(("held in", "GiB needed with one slot, computed", "run"), rows)


def tests(parts: Sequence[Part]) -> str:
    """Each test with its outcome."""
    rows = []
    for test in parts[0].found:
        first = test["reason"].partition("\n")[0].replace("|", "/")
        rows.append([test["name"], test["outcome"], first])
    return table(("test", "outcome", "reason"), rows)


def boots(parts: Sequence[Part]) -> str:
    """Times, memory and speed of each boot, then their logs."""
    rows = []
    for part in parts:
        found, answer, memory = part.found, part.found["answer"], part.found["memory"]
        shown = [gib(memory[name]) if name in memory else "–" for name in ("reserved", "in_use", "host")]
        speed = [number(answer["time_to_first_token"]), number(answer["tokens_per_second"], 1)]
        rows.append([part.of, path(found["log"]), number(found["seconds"], 1), *shown, *speed])
    header = ["set", "path", "boot s", "GiB reserved by torch", "in use on the card", "of the host"]
    header += ["first token s", "tokens/s alone"]
    logs = (f"{part.of}\n\n```\n{log(part.found['log'])}\n```" for part in parts)
    return "\n\n".join([table(header, rows), *logs])


def path(lines: Sequence[tuple[float, str]]) -> str:
    """The decode path that a boot says it took."""
    prefix = "decode path: "
    return next((line.removeprefix(prefix) for _, line in lines if line.startswith(prefix)), "?")


def log(lines: Sequence[tuple[float, str]]) -> str:
    """With the seconds since the beginning."""
    return "\n".join(f"{seconds:7.1f} s  {line}" for seconds, line in lines)


def quality(parts: Sequence[Part]) -> str:
    """Each precision against the first."""
    rows = []
    for part in parts:
        found = part.found
        compared = [
            number(found[name], 4) if found[name] is not None else "–"
            for name in ("mean_divergence", "worst_divergence", "same_choice")
        ]
        rows.append([part.of, str(found["tokens"]), number(found["loss"], 3), *compared])
    header = ("held in", "tokens", "nats a token", "mean divergence, nats", "largest", "same likeliest token")
    return table(header, rows)


def benchmark(parts: Sequence[Part]) -> str:
    """The figures of each precision that a reader looks for; the rest is in the JSON."""
    rows = []
    for part in parts:
        for figures in part.found["figures"]:
            asked = f"{figures['workload']}, {figures['pupils']} {figures['kind']}"
            names = ("ttft_p50", "last_first_text", "after_first_tokens_per_second", "tokens_per_second")
            failed = shown(figures["failures"], 0)
            rows.append([part.of, asked, *(shown(figures[name]) for name in names), failed])
    header = [
        "held in",
        "asked",
        "TTFT p50 s",
        "last first text s",
        "tokens/s of a request after its first text",
    ]
    return table([*header, "tokens/s in all", "failed"], rows)


def roofline(parts: Sequence[Part]) -> str:
    """What was measured beside the bounds, which are computed."""
    rows = []
    for part in parts:
        for line in part.found:
            asked = [f"{line['workload']}, {line['pupils']}", str(line["rows"]), str(line["length"])]
            speeds = [shown(line[name], 1) for name in ("measured", "by_rates_here", "by_datasheet")]
            rows.append([part.of, *asked, *speeds, share(line)])
    header = [
        "held in",
        "asked",
        "rows",
        "tokens in the cache",
        "tokens/s of a request",
        "bound by rates here",
    ]
    return table([*header, "bound by datasheet", "measured over the first bound"], rows)


def share(line: Mapping[str, Any]) -> str:
    """Of the bound by the rates that this device reaches."""
    return f"{line['measured'] / line['by_rates_here']:.0%}" if line["measured"] else "–"


def shown(value: float | None, digits: int = 2) -> str:
    """A figure, or a dash."""
    return "–" if value is None else number(value, digits)


def gib(count: int) -> str:
    """Bytes as GiB."""
    return number(count / GIB, 1)


SECTIONS = {
    "device": device,
    "precisions": precisions,
    "tests": tests,
    "boot": boots,
    "quality": quality,
    "benchmark": benchmark,
    "roofline": roofline,
}
