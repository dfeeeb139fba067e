"""The adapter: what is refused by name, what must fit the base, and the sum itself."""

import json
from collections.abc import Callable
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

# PEFT warns of what these tests do on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning:transformers")

QUERY = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A LoRA of rank 4 on q_proj and v_proj of both layers, as PEFT saves it, with nothing zero."""
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(tiny_model(), lora).save_pretrained(tmp_path)
    return tmp_path


def configure(folder: Path, **changes: Any) -> Path:
    stored = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(stored | changes))
    return folder


def edit(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> Path:
    tensors = {key: tensor.clone() for key, tensor in load_file(folder / WEIGHTS).items()}
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    return folder


def faults(folder: Path, **base: Any) -> list[str]:
    with pytest.raises(AdapterMismatch) as refused:
        Adapter.read(folder).fitted(tiny_config(**base))
    return refused.value.faults


def test_an_adapter_as_peft_saves_it_fits_its_base(folder: Path) -> None:
    Adapter.read(folder).fitted(tiny_config())


# Reading


def test_absent_files_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing) as refused:
        Adapter.read(tmp_path)
    assert refused.value.faults == [f"{CONFIG} is absent", f"{WEIGHTS} is absent"]


def test_a_pickle_is_not_read_in_place_of_safetensors(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(WeightsMissing, match=f"{WEIGHTS} is absent"):
        Adapter.read(folder)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_truncated_file_is_damaged(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:-20])
    with pytest.raises(WeightsMissing, match="the adapter is damaged"):
        Adapter.read(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "LOHA"),
        ("peft_type", None),
        ("bias", "some"),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "pissa_niter_4"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "loftq"),
        ("init_lora_weights", "corda"),
        ("init_lora_weights", "lora_ga"),
        ("fan_in_fan_out", True),
        ("layer_replication", [[0, 1], [0, 2]]),
        ("target_parameters", ["mlp.experts.down_proj"]),
        ("trainable_token_indices", [1, 2]),
        ("alora_invocation_tokens", [1, 2]),
        ("megatron_config", {"hidden_size": 64}),
        ("megatron_core", "other.core"),
        ("use_qalora", True),
        ("ensure_weight_tying", True),
        ("a_field_of_tomorrow", 1),
    ],
)
def test_a_field_that_cannot_be_merged_exactly_is_refused_by_name(
    folder: Path, field: str, value: Any
) -> None:
    with pytest.raises(AdapterUnsupported) as refused:
        Adapter.read(configure(folder, **{field: value}))
    assert any(fault.startswith(f"{field} is {value!r}") for fault in refused.value.faults)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lora_dropout", 0.1),
        ("revision", "main"),
        ("task_type", "CAUSAL_LM"),
        ("peft_version", "0.99.0"),
        ("init_lora_weights", True),
        ("init_lora_weights", "gaussian"),
        ("init_lora_weights", "eva"),
        ("init_lora_weights", "orthogonal"),
        ("eva_config", {"rho": 2.0}),
        ("layer_replication", []),
        ("a_field_of_tomorrow", None),
        ("a_field_of_tomorrow", False),
        ("a_field_of_tomorrow", {}),
    ],
)
def test_a_field_that_changes_nothing_in_a_merge_passes(folder: Path, field: str, value: Any) -> None:
    Adapter.read(configure(folder, **{field: value})).fitted(tiny_config())


def test_all_unsupported_fields_are_named_at_once(folder: Path) -> None:
    with pytest.raises(AdapterUnsupported) as refused:
        Adapter.read(configure(folder, use_qalora=True, fan_in_fan_out=True, new="x"))
    assert [fault.split(" is ")[0] for fault in refused.value.faults] == [
        "fan_in_fan_out",
        "new",
        "use_qalora",
    ]


def test_fields_that_peft_itself_refuses_together_are_refused(folder: Path) -> None:
    with pytest.raises(AdapterUnsupported, match="lora_bias=True is not supported for DoRA"):
        Adapter.read(configure(folder, use_dora=True, lora_bias=True))


def test_a_configuration_without_a_type_is_refused(folder: Path) -> None:
    (folder / CONFIG).write_text("{}")
    with pytest.raises(AdapterUnsupported, match="peft_type is None"):
        Adapter.read(folder)


# Fitting the base


def test_an_adapter_for_a_wider_base_is_refused_with_both_shapes(folder: Path) -> None:
    assert (
        "base_model.model.model.layers.{0..1}.self_attn.q_proj.lora_A.weight has shape (4, 64), "
        f"and the base and {CONFIG} need (4, 32)"
    ) in faults(folder, hidden_size=32)


def test_layers_that_the_base_does_not_have_are_refused(folder: Path) -> None:
    said = faults(folder, num_hidden_layers=1)
    assert len(said) == 4
    assert all(".layers.1." in fault and "that the base does not have" in fault for fault in said)


def test_layers_of_the_base_without_tensors_are_refused_by_number(folder: Path) -> None:
    assert (
        "base_model.model.model.layers.{2..4}.self_attn.v_proj.lora_B.weight is absent, "
        f"and {CONFIG} asks for it"
    ) in faults(folder, num_hidden_layers=5)


def test_numbers_with_gaps_are_listed(folder: Path) -> None:
    edit(folder, lambda tensors: [tensors.pop(key) for key in list(tensors) if "layers.1" in key])
    said = faults(folder, num_hidden_layers=4)
    assert any(".layers.{1..3}." in fault for fault in said)
    configure(folder, layers_to_transform=[1, 8])
    assert any(".layers.{1,8}." in fault for fault in faults(folder, num_hidden_layers=9))


@pytest.mark.parametrize("half", ["lora_A", "lora_B"])
def test_half_a_pair_is_refused(folder: Path, half: str) -> None:
    key = f"{PREFIX}{QUERY}.{half}.weight"
    edit(folder, lambda tensors: tensors.pop(key))
    assert faults(folder) == [f"{key} is absent, and {CONFIG} asks for it"]


@pytest.mark.parametrize(
    "wanted",
    [
        {"target_modules": ["q_proj", "v_proj", "o_proj"]},
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.(q|v|o)_proj"},
        {"modules_to_save": ["o_proj"]},
        {"use_dora": True},
        {"bias": "lora_only"},
    ],
)
def test_what_the_configuration_wants_must_be_in_the_file(folder: Path, wanted: dict[str, Any]) -> None:
    said = faults(configure(folder, **wanted))
    assert said
    assert all(fault.endswith(f"is absent, and {CONFIG} asks for it") for fault in said)


def test_a_module_that_the_configuration_leaves_out_is_refused(folder: Path) -> None:
    said = faults(configure(folder, exclude_modules=["v_proj"]))
    assert len(said) == 2
    assert all("v_proj" in fault and "is not asked for" in fault for fault in said)


def test_a_rank_that_differs_from_its_pattern_is_refused(folder: Path) -> None:
    said = faults(configure(folder, rank_pattern={"layers.1.self_attn.q_proj": 2}))
    assert sorted(said) == [
        f"{PREFIX}model.layers.1.self_attn.q_proj.lora_A.weight has shape (4, 64), "
        f"and the base and {CONFIG} need (2, 64)",
        f"{PREFIX}model.layers.1.self_attn.q_proj.lora_B.weight has shape (64, 4), "
        f"and the base and {CONFIG} need (64, 2)",
    ]


def test_target_modules_that_the_base_does_not_have_are_refused(folder: Path) -> None:
    said = faults(configure(folder, target_modules=["query_key_value"]))
    assert "'query_key_value'} not found" in said[0]


def test_a_module_to_save_that_the_base_does_not_have_is_refused(folder: Path) -> None:
    said = faults(configure(folder, modules_to_save=["score"]))
    assert said == ["modules_to_save names score, which the base does not have"]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.self_attn.q_proj.weight", (64, 64)),
        ("model.layers.0.self_attn.q_proj.bias", (64,)),
        ("model.layers.0.self_attn.q_proj.base_layer.weight", (64, 64)),
        ("model.layers.0.self_attn.q_proj.original_module.weight", (64, 64)),
        ("model.layers.0.mlp.up_proj.base_layer.weight", (128, 64)),
        ("model.layers.0.mlp.up_proj.modules_to_save.weight", (128, 64)),
        ("model.layers.0.mlp.up_proj.weight", (128, 64)),
        ("model.norm.weight", (64,)),
        ("lm_head.original_module.weight", (391, 64)),
        ("model.embed_tokens.base_layer.weight", (391, 64)),
    ],
)
def test_a_weight_that_the_configuration_does_not_ask_for_is_refused_by_name(
    folder: Path, name: str, shape: tuple[int, ...]
) -> None:
    edit(folder, lambda tensors: tensors.update({PREFIX + name: torch.ones(shape)}))
    assert faults(folder) == [f"{PREFIX}{name} is not asked for by {CONFIG}"]


def test_a_copy_of_a_saved_module_must_equal_what_it_copies(folder: Path) -> None:
    key = f"{PREFIX}lm_head.weight"
    copy = f"{PREFIX}lm_head.modules_to_save.weight"
    edit(folder, lambda tensors: tensors.update({key: torch.ones(391, 64), copy: torch.zeros(391, 64)}))
    said = faults(configure(folder, modules_to_save=["lm_head"]))
    assert said == [f"{copy} differs from {key}, of which it is a copy"]


@pytest.mark.parametrize("key", ["model.norm.weight", f"{PREFIX}{QUERY}.lora_C.weight", "norm", "{0}.{x}"])
def test_a_key_that_finds_no_weight_is_refused(folder: Path, key: str) -> None:
    edit(folder, lambda tensors: tensors.update({key: torch.ones(64)}))
    assert [fault.startswith(f"{key} ") for fault in faults(folder)] == [True]


def test_a_saved_weight_of_another_vocabulary_is_refused(folder: Path) -> None:
    key = f"{PREFIX}lm_head.weight"
    edit(folder, lambda tensors: tensors.update({key: torch.ones(3, 64)}))
    assert faults(folder)[0].startswith(f"{key} has shape (3, 64)")


def test_a_bias_for_a_layer_without_one_is_refused(folder: Path) -> None:
    lora = LoraConfig(r=4, target_modules=["q_proj", "o_proj"], lora_bias=True, init_lora_weights=False)
    get_peft_model(tiny_model(), lora).save_pretrained(folder)
    assert faults(folder) == [
        f"{PREFIX}model.layers.{{0..1}}.self_attn.o_proj.lora_B.bias "
        "changes a weight that the base does not have"
    ]


@pytest.mark.parametrize("half", ["lora_A", "lora_B"])
def test_an_adapter_that_changes_nothing_is_refused(folder: Path, half: str) -> None:
    edit(folder, lambda tensors: [t.zero_() for key, t in tensors.items() if half in key])
    assert faults(folder) == ["the adapter changes nothing: what it adds is zero"]


@pytest.mark.parametrize("nothing", [{"lora_alpha": 0}, {"alpha_pattern": {"q_proj": 0, "v_proj": 0}}])
def test_an_adapter_that_is_scaled_to_nothing_is_refused(folder: Path, nothing: dict[str, Any]) -> None:
    assert faults(configure(folder, **nothing)) == ["the adapter changes nothing: what it adds is zero"]


def test_an_adapter_of_which_one_module_works_passes(folder: Path) -> None:
    Adapter.read(configure(folder, alpha_pattern={"q_proj": 0})).fitted(tiny_config())


@pytest.mark.parametrize("alpha", [float("nan"), float("inf")])
def test_a_scaling_that_is_not_finite_is_refused(folder: Path, alpha: float) -> None:
    assert f"lora_alpha and r scale {QUERY}.weight by {alpha}" in faults(configure(folder, lora_alpha=alpha))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    key = f"{PREFIX}{QUERY}.lora_A.weight"
    edit(folder, lambda tensors: tensors[key].view(-1)[0].fill_(value))
    assert faults(folder) == [f"{key} holds values that are not finite"]


def test_faults_of_every_kind_are_reported_together(folder: Path) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        tensors.pop(f"{PREFIX}{QUERY}.lora_B.weight")
        tensors["stray"] = torch.full((1,), float("nan"))

    assert len(faults(edit(folder, spoil))) == 3


def test_checking_leaves_the_adapter_and_the_base_configuration_as_they_were(folder: Path) -> None:
    adapter, base = Adapter.read(configure(folder, target_modules="all-linear")), tiny_config(tie=True)
    before = adapter.config.to_dict(), base.to_dict()
    with pytest.raises(AdapterMismatch):
        adapter.fitted(base)
    assert (adapter.config.to_dict(), base.to_dict()) == before


PATHS = st.sampled_from([f"{PREFIX}lm_head", f"{PREFIX}{QUERY}", QUERY, PREFIX, "lm_head"])
KEYS = st.builds("{}.{}".format, PATHS, st.sampled_from(list(PARTS))) | st.text(max_size=40)


@given(st.lists(KEYS, unique=True))
def test_no_key_of_an_adapter_is_lost(keys: list[str]) -> None:
    kept = [key for parts in _changes(keys).values() for key in parts.values()]
    assert sorted(kept) == sorted(keys)


def test_a_shard_that_was_saved_empty_is_refused(folder: Path) -> None:
    key = f"{PREFIX}{QUERY}.lora_A.weight"
    edit(folder, lambda tensors: tensors.update({key: torch.empty(0)}))
    assert faults(folder) == [f"{key} has shape (0,), and the base and {CONFIG} need (4, 64)"]


@pytest.mark.parametrize("wrong", [{"r": "4"}, {"target_modules": "(q_proj"}, {"rank_pattern": None}])
def test_a_configuration_that_peft_cannot_apply_is_refused(folder: Path, wrong: dict[str, Any]) -> None:
    assert faults(configure(folder, **wrong))[0].startswith(f"PEFT cannot apply {CONFIG}: ")


# The sum


def test_the_sum_is_made_in_fp32_and_rounded_once(folder: Path) -> None:
    down, up = (load_file(folder / WEIGHTS)[f"{PREFIX}{QUERY}.lora_{side}.weight"] for side in "AB")
    weight = torch.randn(64, 64, dtype=torch.bfloat16)
    merged = Adapter.read(folder).apply(f"{QUERY}.weight", weight)
    assert torch.equal(merged, (weight.float() + up @ down * 2.0).bfloat16())


def test_merging_changes_neither_the_weight_nor_the_adapter(folder: Path) -> None:
    adapter, weight = Adapter.read(folder), torch.randn(64, 64)
    before = weight.clone()
    once, twice = (adapter.apply(f"{QUERY}.weight", weight) for _ in range(2))
    assert torch.equal(once, twice)
    assert torch.equal(weight, before)


def test_a_saved_weight_is_a_copy_and_no_view_of_the_file(folder: Path) -> None:
    edit(folder, lambda tensors: tensors.update({f"{PREFIX}lm_head.weight": torch.ones(391, 64)}))
    adapter = Adapter.read(folder)
    adapter.apply("lm_head.weight", torch.zeros(391, 64)).zero_()
    assert adapter.apply("lm_head.weight", torch.zeros(391, 64)).eq(1).all()


def test_a_weight_that_the_adapter_does_not_change_is_handed_back(folder: Path) -> None:
    weight = torch.randn(3)
    assert Adapter.read(folder).apply("model.norm.weight", weight) is weight
