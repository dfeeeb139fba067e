"""One boot and what is measured in it. Arguments: `BEGAN TABLE…`; prints each table as a line of JSON.

BEGAN is when this process was started, in seconds since the epoch; tables are methods of `Measures`. Times of
steps and prefill are medians.
"""

import dataclasses
import itertools
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from snb.card import GIB, PREFILL_TOKENS, Footprint
from snb.engine.generation import Generation
from snb.engine.recording import doublings
from snb.engine.slots import Step
from snb.parameters import Sampling
from snb.philosophers import names, persona
from snb.request import Request
from snb.self_test.reference import scores
from snb.self_test.rounding import divergence
from snb.service import Service
from snb.settings import Settings
from tools.benchmarking import workload
from tools.benchmarking.bounds import Bounds, Rates
from tools.benchmarking.device import rates, seconds
from tools.benchmarking.report import Row

COLUMNS = 768
"""Columns of the cache that a measured decode step reads."""
FORCED = 32
"""Tokens at the end of a prompt that are decoded one by one, to compare scores."""
LAST = 32
"""New tokens with which a slot is filled to the end of its context."""


class Measures:
    """Each public method yields the rows of a table. Nobody else uses the service meanwhile."""

    def __init__(self, service: Service) -> None:
        self.service, self.engine = service, service._engine
        self.model = self.engine.model
        self.slots, self.context = self.model.cache.slots, self.model.cache.context
        self.kind, self.columns = self.model.model.device.type, min(COLUMNS, self.context)
        self.precision = service.boot.precision
        self.bounds = Bounds(self.model.model.config)

    @cached_property
    def rates(self) -> Rates:
        """Measured only if a table needs it, since a full card has no room for the measurement."""
        return rates(self.kind, self.model.model.dtype)

    def speed(self) -> Iterator[Row]:
        """The rates that the other tables are held against."""
        copied, multiplied = self.rates
        yield {"copy_gb_per_second": copied / 1e9, "product_tflops": multiplied / 1e12}

    def memory(self) -> Iterator[Row]:
        """GiB: computed for these slots; peaks of torch and of the host; in use on the card."""
        need = Footprint(self.model.model.config).need(self.precision, self.slots, self.context)
        sizes = {"weights": need.weights, "cache": need.cache, "margin": need.margin, "computed": need.total}
        if self.kind == "cuda":
            free, total = torch.cuda.mem_get_info()
            sizes |= {"reserved_peak": torch.cuda.max_memory_reserved(), "in_use": total - free}
            sizes |= {"allocated_peak": torch.cuda.max_memory_allocated()}
        sizes["host_peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        yield {f"{name}_gib": size / GIB for name, size in sizes.items()}

    def steps(self) -> Iterator[Row]:
        """Milliseconds of a decode step by the boot's path and kernel by kernel; of its matrix products
        alone; of its bytes at the rate of a copy; and the path's ratio to products and cache bytes."""
        for rows in doublings(1, self.slots):
            own, eager = (self._step(step, rows) for step in (self.engine.step, self.model.step))
            products = self._milliseconds(self._products(rows))
            read, cacheless = (self._read(rows, columns) for columns in (self.columns, 0))
            yield {
                "rows": rows,
                f"{self.service.boot.path}_ms": own,
                "kernel_by_kernel_ms": eager,
                "products_ms": products,
                "bytes_ms": read,
                "over_products_and_cache": own / (products + read - cacheless),
            }

    def _step(self, step: Step, rows: int) -> float:
        """Milliseconds of a step that reads `self.columns` columns of the cache."""
        return self._milliseconds(step, *self._inputs(rows))

    def _inputs(self, rows: int) -> tuple[Tensor, Tensor, int]:
        """Inputs of a step, for the first `rows` rows."""
        for row in range(rows):
            self.model.cache.start(row, None)  # a prefix may be longer than `columns`
        ids = self._tensor([[100]] * rows)
        return ids, torch.full_like(ids, self.columns - 1), self.columns

    def _read(self, rows: int, columns: int) -> float:
        """Milliseconds that the bytes of a step take at the bandwidth measured here."""
        return 1e3 * self.bounds.read(self.precision, rows, columns) / self.rates.bandwidth

    def _products(self, rows: int) -> Callable[[], object]:
        """Runs every matrix product of a step and nothing else; on a GPU as one CUDA graph."""
        config, like = self.model.model.config, {"device": self.kind, "dtype": self.model.model.dtype}
        states = torch.zeros(rows, 1, config.hidden_size, **like)
        between = torch.zeros(rows, 1, config.intermediate_size, **like)

        @torch.inference_mode()
        def multiply() -> None:
            for layer in self.model.layers:
                layer.attention.projections(states)
                layer.attention.output(states)
                layer.mlp.projections(states)
                layer.mlp.output(between)
            self.model.head(states)

        if self.kind != "cuda":
            return multiply
        multiply()  # libraries allocate workspaces, which must not be recorded
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            multiply()
        return graph.replay

    def prefill(self) -> Iterator[Row]:
        """Milliseconds to process the tokens of one prompt, and their bound at the rates measured here."""
        for tokens in (size for size in (64, 256, PREFILL_TOKENS) if size < self.context):
            own = self._milliseconds(self.model.prefill, [0], [[100] * tokens], [0], self.engine.prefill_pass)
            bound = 1e3 * self.bounds.prefill(self.rates, self.precision, tokens)
            yield {"tokens": tokens, "measured_ms": own, "bound_ms": bound}

    def throughput(self) -> Iterator[Row]:
        """The questions of `benchmark --workload chat`, without a server: tokens/s over the whole time, and
        from the last first token on; the latter also as a share of rows ÷ step."""
        for rows in sorted({1, max(1, self.slots // 2), self.slots}):
            began = time.monotonic()
            asked = self._asked(rows)
            while not all(one.tokens or one.finish_reason for one in asked):
                time.sleep(0.005)
            spoken, before = time.monotonic(), sum(len(one.tokens) for one in asked)
            for one in asked:
                "".join(one)
            ended, tokens = time.monotonic(), sum(len(one.tokens) for one in asked)
            decoding = (tokens - before) / (ended - spoken)
            yield {
                "rows": rows,
                "last_first_token_s": spoken - began,
                "tokens_per_second": tokens / (ended - began),
                "while_decoding": decoding,
                "over_rows_per_step": decoding * self._step(self.engine.step, rows) / 1e3 / rows,
            }

    def company(self) -> Iterator[Row]:
        """Whether a seed gives the same in company as alone: equal tokens up to the first that differs; and
        whether the scores of one step are equal."""
        [alone] = self._asked(1)
        list(alone)
        for rows in sorted({max(1, self.slots // 2), self.slots} - {1}):
            together = self._asked(rows)
            for one in together:
                list(one)
            pairs = enumerate(zip(alone.tokens, together[0].tokens, strict=False))
            parted = next((at for at, (own, other) in pairs if own != other), len(alone.tokens))
            first, among = (self.engine.step(*self._inputs(count))[0].clone() for count in (1, rows))
            same = "yes" if torch.equal(first, among) else "no"
            yield {"rows": rows, "tokens": len(alone.tokens), "same_tokens": parted, "same_scores": same}

    def _asked(self, number: int) -> list[Generation]:
        """Asks the first `number` questions of the workload, each with its own seed."""
        return [self.engine.generate(*self._question(one), one) for one in range(number)]

    def generate(self) -> Iterator[Row]:
        """Plain `generate` on the first of these questions: tokens/s over the whole time."""
        ids, sampling = self._question(0)
        whole, count = self._tensor([ids]), sampling.max_tokens
        options = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": True, **workload.SAMPLING}
        work = partial(self.model.model.generate, whole, attention_mask=torch.ones_like(whole), **options)
        [taken] = seconds(self.kind, work, tries=1)
        yield {"prompt": len(ids), "tokens": count, "tokens_per_second": count / taken}

    def _question(self, number: int) -> tuple[list[int], Sampling]:
        request = Request.checked(**workload.inputs("chat", number))
        room = self.context - request.sampling.max_tokens
        prompt = self.service._chatml.prompt(persona("spinoza"), request, room)
        return prompt.ids, dataclasses.replace(request.sampling, french=self.service._french)

    @torch.inference_mode()
    def rounding(self) -> Iterator[Row]:
        """Divergence from fp32 in nats at the last tokens of a prompt: of a plain pass and of the engine."""
        for name in names():
            ids = self._prompt(name)
            whole = self._tensor([ids])
            exact = scores(self.model.model, whole, len(ids) - FORCED - 1)[0]
            plain = self.model.model(whole, logits_to_keep=FORCED + 1).logits[0].float()
            row: dict[str, Any] = {"persona": name, "tokens": len(ids)}
            for way, own in (("plain", plain), ("engine", self._forced(ids))):
                nats = divergence(own, exact)
                row |= {f"{way}_mean_nats": nats.mean().item(), f"{way}_largest_nats": nats.max().item()}
            yield row

    def _forced(self, ids: list[int]) -> Tensor:
        """The engine's scores after each of the last tokens: the prompt in chunks, these step by step."""
        body = len(ids) - FORCED
        for start in range(0, body, PREFILL_TOKENS):
            chunk = ids[start : min(body, start + PREFILL_TOKENS)]
            read = self.model.prefill([0], [chunk], [start], self.engine.prefill_pass)
        decode, step = self.model.decode, self.engine.step
        steps = [decode([ids[at]], [at], step)[0].clone() for at in range(body, len(ids))]
        return torch.stack([read[0], *steps])

    def full(self) -> Iterator[Row]:
        """Fills every slot to the end of its context: how many were filled, and in how many seconds."""
        prompt = list(itertools.islice(itertools.cycle(self._prompt("spinoza")), self.context - LAST))
        sampling = Sampling(max_tokens=2 * LAST, min_tokens=2 * LAST)
        began = time.monotonic()
        asked = [self.engine.generate(prompt, sampling, seed) for seed in range(self.slots)]
        for one in asked:
            "".join(one)
        filled = sum(len(one.prompt) + len(one.tokens) == self.context for one in asked)
        taken = {"filled": filled, "seconds": time.monotonic() - began}
        yield {"slots": self.slots, "context": self.context, "new_tokens": LAST, **taken}

    def _prompt(self, name: str) -> list[int]:
        request = Request(user_message="La liberté est-elle une illusion ?")
        return self.service._chatml.prompt(persona(name), request, self.context).ids

    def _tensor(self, ids: Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(ids, device=self.model.model.device)

    def _milliseconds(self, work: Callable[..., object], *given: Any) -> float:
        """Median milliseconds of `work(*given)` over 20 tries."""
        return 1e3 * statistics.median(seconds(self.kind, lambda: work(*given), tries=20))


def write(name: str, *rows: Row) -> None:
    """Prints one table, as a line of JSON."""
    print(json.dumps({name: rows}), flush=True)


def boot(began: float) -> Service:
    """Boots a service; prints how long that took, and what its self-test measured."""
    imported = time.time() - began
    settings = Settings.from_environment()
    service = Service(settings)
    choice = service.boot
    phases = {f"{name}_s": seconds for name, seconds in choice.seconds.items()}
    chosen = {"path": choice.path, "precision": choice.precision, "slots": choice.slots}
    write("boot", {**chosen, "imports_s": imported, **phases, "ready_s": time.time() - began})
    write("self-test", choice.self_test.figures)
    if settings.path not in ("auto", choice.path):
        sys.exit(f"the path {settings.path} is of no use here, for the reason above; {choice.path} is")
    return service


def main(began: float, *tables: str) -> int:
    """Prints each table; returns 1 if one failed, as for lack of memory, which does not stop the rest."""
    measures, failed = Measures(boot(began)), 0
    for name in tables:
        rows: list[Row] = []
        try:
            rows.extend(getattr(measures, name)())
        except Exception as error:  # torch and the driver raise many kinds
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            failed = 1
        write(name, *rows)
    return failed


if __name__ == "__main__":
    # The decode thread may be inside torch when the interpreter ends, which aborts it.
    os._exit(main(float(sys.argv[1]), *sys.argv[2:]))
