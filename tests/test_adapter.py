"""Adapters: what is refused, by name, and how one must fit its base."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from snb.errors import AdapterMismatch, AdapterUnsupported, WeightsMissing
from snb.weights.adapter import CONFIG, PARTS, PREFIX, WEIGHTS, Adapter, _changes
from tests.tiny import tiny_config, tiny_model

# PEFT warns about what these tests do on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning:transformers")

QUERY = "model.layers.0.self_attn.q_proj"
A, B = (f"{PREFIX}{QUERY}.lora_{side}.weight" for side in "AB")
HEAD = f"{PREFIX}lm_head.weight"
PATTERNS = ("rank_pattern", "alpha_pattern")
COPY = f"{PREFIX}lm_head.modules_to_save.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A LoRA of rank 4 on q_proj and v_proj of both layers, as PEFT saves it, without zero tensors."""
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(tiny_model(), lora).save_pretrained(tmp_path)
    return tmp_path


def configure(folder: Path, **changes: Any) -> Path:
    stored = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(stored | changes))
    return folder


def edit(folder: Path, changes: dict[str, Tensor | None]) -> Path:
    """Adds or replaces tensors, or removes those for which None is given."""
    tensors = load_file(folder / WEIGHTS) | changes
    save_file(
        {key: tensor.clone() for key, tensor in tensors.items() if tensor is not None}, folder / WEIGHTS
    )
    return folder


# Reading


def test_absent_truncated_and_pickled_files_are_named(folder: Path) -> None:
    for name, words in ((CONFIG, "is not a readable JSON object"), (WEIGHTS, "is truncated or damaged")):
        whole = (folder / name).read_bytes()
        for damaged in (whole[:-20], b"[" * 100_000):
            (folder / name).write_bytes(damaged)
            with pytest.raises(WeightsMissing, match=f"{name} {words}"):
                Adapter.read(folder)
        (folder / name).write_bytes(whole)
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()
    (folder / CONFIG).unlink()
    with pytest.raises(WeightsMissing) as refused:
        Adapter.read(folder)
    assert refused.value.faults == [f"{CONFIG} is absent", f"{WEIGHTS} is absent"]


@pytest.mark.parametrize(
    "changes",
    [
        {"peft_type": "LOHA"},
        {"peft_type": None},
        {"bias": "some"},
        {"init_lora_weights": "pissa"},
        {"layer_replication": [[0, 1], [0, 2]]},
        {"megatron_core": "other.core"},
        {"a_field_of_tomorrow": 1, "fan_in_fan_out": True, "use_qalora": True},
    ],
    ids=str,
)
def test_all_fields_that_cannot_be_merged_exactly_are_refused_by_name(
    folder: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(AdapterUnsupported) as refused:
        Adapter.read(configure(folder, **changes))
    for fault, (name, value) in zip(refused.value.faults, changes.items(), strict=True):
        assert fault.startswith(f"{name} is {value!r}")


def test_fields_that_peft_refuses_together_and_a_configuration_without_a_type_are_refused(
    folder: Path,
) -> None:
    with pytest.raises(AdapterUnsupported, match="lora_bias=True is not supported for DoRA"):
        Adapter.read(configure(folder, use_dora=True, lora_bias=True))
    (folder / CONFIG).write_text("{}")
    with pytest.raises(AdapterUnsupported, match="peft_type is None"):
        Adapter.read(folder)


MANY = [f"m{number}" for number in range(501)]
BACKTRACKING = "(.*)*x"
UNBOUNDED: list[dict[str, Any]] = [
    *({field: [8]} for field in ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern")),
    *({"target_modules": value} for value in [8, [[]], MANY * 9]),
    *({"target_modules": text} for text in (".*" * 5001, ["q" * 10_001])),
    *({"modules_to_save": entries} for entries in ([BACKTRACKING], ["(lm|head)"], MANY)),
    *({"layers_pattern": entries, "layers_to_transform": [0]} for entries in (BACKTRACKING, [BACKTRACKING])),
    *({"layers_to_transform": layers} for layers in ("0", ["0"], [0] * 4097)),
    *(
        {field: dict.fromkeys(names, 4)}
        for field in PATTERNS
        for names in ([BACKTRACKING], ["q" * 201], MANY)
    ),
    *({field: [["q_proj", 4]]} for field in PATTERNS),
    *({"rank_pattern": {"q_proj": rank}} for rank in ("4", 4.0, 0, -1, None)),
    *({"alpha_pattern": {"q_proj": alpha}} for alpha in ("4", 10**40, None)),
    *({"r": rank} for rank in ("4", 0, -4, 10**10, None, [4])),
    *({"lora_alpha": alpha} for alpha in ("8", 10**400, 1e300, None)),
]


@pytest.mark.parametrize("changes", UNBOUNDED, ids=lambda changes: str(changes)[:60])
def test_what_would_be_searched_for_hours_or_has_another_type_is_refused_by_name(
    folder: Path, changes: dict[str, Any]
) -> None:
    field = next(iter(changes))
    with pytest.raises(AdapterUnsupported, match=f"{field} (has|is|or|have)|{field}, .* have more"):
        Adapter.read(configure(folder, **changes))


@pytest.mark.parametrize("field", ["target_modules", "exclude_modules"])
@pytest.mark.parametrize(
    "expression", ["(q_proj", "(" * 5000, "(?:.|.)" * 30 + r"(?<=z\w)"], ids=["none", "deep", "slow"]
)
def test_an_expression_that_is_none_or_backtracks_for_ever_is_refused_in_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch, field: str, expression: str
) -> None:
    monkeypatch.setattr("snb.weights.adapter.PATIENCE", 0.1)
    with pytest.raises(AdapterUnsupported, match=f"{field} cannot be matched: .*List the modules by name"):
        Adapter.read(configure(folder, **{field: expression})).fitted(tiny_config())


def test_a_huge_rank_is_held_against_the_tensors_and_takes_no_memory(folder: Path) -> None:
    for how in (True, "gaussian", "orthogonal"):
        adapter = Adapter.read(configure(folder, r=1 << 30, init_lora_weights=how))
        with pytest.raises(AdapterMismatch, match=r"has shape \(4, 64\), .* need \(1073741824, 64\)"):
            adapter.fitted(tiny_config())


@pytest.mark.parametrize(
    "changes",
    [
        {"lora_dropout": 0.1, "revision": "main", "task_type": "CAUSAL_LM", "peft_version": "0.99.0"},
        {"init_lora_weights": "gaussian", "eva_config": {"rho": 2.0}, "layer_replication": []},
        {"init_lora_weights": "eva", "a_field_of_tomorrow": False},
        {"init_lora_weights": "orthogonal", "a_field_of_tomorrow": None},
        {"alpha_pattern": {"q_proj": 0}},  # v_proj still changes
    ],
    ids=str,
)
def test_fields_that_change_nothing_in_a_merge_pass(folder: Path, changes: dict[str, Any]) -> None:
    Adapter.read(configure(folder, **changes)).fitted(tiny_config())


# Fitting the base


@dataclass(frozen=True)
class Mismatch:
    """What is wrong, and words of the faults: each fault contains one of them, and each occurs in a fault."""

    words: list[str]
    config: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor | None] = field(default_factory=dict)
    base: dict[str, Any] = field(default_factory=dict)


MODULES = ("q_proj", "v_proj")
OUTPUTS = {
    f"model.layers.{n}.self_attn.{module}": rows
    for n in (0, 1)
    for module, rows in (("q_proj", 64), ("v_proj", 32))
}


def key(layers: object, module: str, side: str) -> str:
    return f"{PREFIX}model.layers.{layers}.self_attn.{module}.lora_{side}.weight"


def each(layers: object, fault: str) -> list[str]:
    return [f"{key(layers, module, side)} {fault}" for module in MODULES for side in "AB"]


ABSENT, NEED = f"is absent, and {CONFIG} asks for it", f"and the base and {CONFIG} need"
UNASKED, UNKNOWN = f"is not asked for by {CONFIG}", "changes a weight that the base does not have"
NOTHING = ["the adapter changes nothing: what it adds is zero"]
STRANGERS = {
    f"{QUERY}.weight": (64, 64),
    f"{QUERY}.base_layer.weight": (64, 64),
    "model.layers.0.mlp.up_proj.modules_to_save.weight": (128, 64),
    "model.norm.weight": (64,),
}
MISMATCHES = {
    "a wider base": Mismatch(
        [f"{key('{0..1}', 'q_proj', 'A')} has shape (4, 64), {NEED} (4, 32)", NEED], base={"hidden_size": 32}
    ),
    "layers that the base lacks": Mismatch(each(1, UNKNOWN), base={"num_hidden_layers": 1}),
    "layers of the base without tensors": Mismatch(each("{2..4}", ABSENT), base={"num_hidden_layers": 5}),
    "numbers with gaps": Mismatch(
        [*each("{1,8}", ABSENT), *each(0, UNASKED)],
        config={"layers_to_transform": [1, 8]},
        tensors={key(1, module, side): None for module in MODULES for side in "AB"},
        base={"num_hidden_layers": 9},
    ),
    "no lora_B": Mismatch([f"{B} {ABSENT}"], tensors={B: None}),
    "not all linear": Mismatch([ABSENT], {"target_modules": "all-linear"}),
    "a rank that is not its pattern's": Mismatch(
        [
            f"{key(1, 'q_proj', 'A')} has shape (4, 64), {NEED} (2, 64)",
            f"{key(1, 'q_proj', 'B')} has shape (64, 4), {NEED} (64, 2)",
        ],
        {"rank_pattern": {"layers.1.self_attn.q_proj": 2}},
    ),
    "unknown targets": Mismatch(["'query_key_value'} not found"], {"target_modules": ["query_key_value"]}),
    "an unknown module to save": Mismatch(
        ["modules_to_save names score, which the base does not have"], {"modules_to_save": ["score"]}
    ),
    "a copy that differs": Mismatch(
        [f"{COPY} differs from {HEAD}, of which it is a copy"],
        {"modules_to_save": ["lm_head"]},
        {HEAD: torch.ones(391, 64), COPY: torch.zeros(391, 64)},
    ),
    "a shard saved empty": Mismatch([f"{A} has shape (0,), {NEED} (4, 64)"], tensors={A: torch.empty(0)}),
    "only zeros in B": Mismatch(
        NOTHING, tensors={B.replace(QUERY, name): torch.zeros(rows, 4) for name, rows in OUTPUTS.items()}
    ),
    "alphas of 0": Mismatch(NOTHING, {"alpha_pattern": {"q_proj": 0, "v_proj": 0}}),
    "all at once": Mismatch(
        [f"{B} {ABSENT}", f"stray {UNKNOWN}", "stray holds values that are not finite"],
        tensors={B: None, "stray": torch.full((1,), float("nan"))},
    ),
    "infinity in a tensor": Mismatch(
        [f"{A} holds values that are not finite"],
        tensors={A: torch.ones(4, 64).index_fill(0, torch.tensor([3]), float("inf"))},
    ),
    **{
        f"{name} unasked": Mismatch([f"{PREFIX}{name} {UNASKED}"], tensors={PREFIX + name: torch.ones(shape)})
        for name, shape in STRANGERS.items()
    },
    **{
        f"the key {name}": Mismatch([f"{name} "], tensors={name: torch.ones(64)})
        for name in (
            *("model.norm.weight", f"{PREFIX}{QUERY}.lora_C.weight", "{0}.{x}"),
            f"{PREFIX}model.layers.0.self_attn.o_proj.lora_B.bias",
        )
    },
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_an_adapter_that_does_not_fit_is_refused_with_all_its_faults(folder: Path, name: str) -> None:
    wrong = MISMATCHES[name]
    adapter = Adapter.read(edit(configure(folder, **wrong.config), wrong.tensors))
    base = tiny_config(**wrong.base)
    before = adapter.config.to_dict(), base.to_dict()
    with pytest.raises(AdapterMismatch) as refused:
        adapter.fitted(base)
    faults = refused.value.faults
    assert all(any(word in fault for fault in faults) for word in wrong.words), faults
    assert all(any(word in fault for word in wrong.words) for fault in faults), faults
    assert repr((adapter.config.to_dict(), base.to_dict())) == repr(before)  # NaN is not itself


PATHS = st.sampled_from([f"{PREFIX}lm_head", f"{PREFIX}{QUERY}", QUERY, PREFIX, "lm_head"])
KEYS = st.builds("{}.{}".format, PATHS, st.sampled_from(list(PARTS))) | st.text(max_size=40)


@given(st.lists(KEYS, unique=True))
def test_no_key_of_an_adapter_is_lost(keys: list[str]) -> None:
    kept = [key for parts in _changes(keys).values() for key in parts.values()]
    assert sorted(kept) == sorted(keys)
