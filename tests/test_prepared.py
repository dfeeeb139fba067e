"""Prepared weights: bit for bit those of a boot that merges; refused if incomplete or made for others."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from snb.card import CARDS, Device, Footprint, choose
from snb.errors import DeviceUnusable, DiskFull, PreparedMismatch, WeightsMissing
from snb.request import Request
from snb.service import Service
from snb.settings import Settings
from snb.weights import loader, prepared
from snb.weights.checkpoint import CARD
from snb.weights.hub import MARGIN, Hub
from snb.weights.lock import NAME, Lock
from snb.weights.prepared import Card
from tests import scripts
from tests.hub import LoopbackHub
from tests.test_merge import adapter_folder, base_folder, differing
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer
from tools.preparing import preparation, quality

# PEFT warns about what these tests do on purpose.
pytestmark = [
    pytest.mark.slow,  # every test quantises and saves a model, or loads one
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning:transformers"),
]

LORA: dict[str, Any] = {"target_modules": ["q_proj", "v_proj", "down_proj"]}
IDS = torch.arange(3, 40)[None]


def made_of(folder: Path, tied: bool = False, **lora: Any) -> Settings:
    """Makes a tiny base and an adapter in `folder`; returns settings that name them."""
    folder.mkdir(parents=True, exist_ok=True)
    base = base_folder(folder, tied)
    tiny_tokenizer().save_pretrained(base)
    adapter = adapter_folder(base, **(lora or LORA))
    return Settings(
        base_model=str(base), adapter=str(adapter), weights_dir=folder / "weights", slots=1, context=256
    )


def prepare(settings: Settings, precision: str = "nf4") -> Settings:
    """Prepares weights for these settings; returns the settings with their folder."""
    output = settings.weights_dir / f"made-{precision}"
    preparation.prepare(preparation.Recipe.of(settings, precision), output)
    return replace(settings, prepared=str(output))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings with weights prepared in nf4 that no test changes."""
    return prepare(made_of(tmp_path_factory.mktemp("kept")))


@pytest.fixture
def ready(kept: Settings, tmp_path: Path) -> Settings:
    """The same with a copy of the weights that a test may damage."""
    shutil.copytree(kept.prepared, tmp_path / "prepared")
    return replace(kept, prepared=str(tmp_path / "prepared"))


def shard(settings: Settings, number: int = 0) -> Path:
    return sorted(Path(settings.prepared).glob("*.safetensors"))[number]


def contents(settings: Settings) -> dict[str, str]:
    lock = Lock.read(Path(settings.prepared))
    assert lock
    return {name: entry.sha256 for name, entry in lock.files.items()}


def written(settings: Settings) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in Path(settings.prepared).glob("*.safetensors")}


def modes(folder: Path) -> set[int]:
    return {path.stat().st_mode for path in folder.iterdir() if path.is_file()}


def edit(settings: Settings, **changes: Any) -> None:
    card = Path(settings.prepared) / CARD
    card.write_text(json.dumps({**json.loads(card.read_text()), **changes}))


# The same weights as a boot that merges


@pytest.mark.parametrize(
    ("precision", "tied", "lora"),
    [
        ("nf4", False, LORA),
        ("int8", True, LORA),
        ("fp8", False, LORA),
        ("bf16", True, LORA),
        ("bf16", False, None),
        ("nf4", True, {"target_modules": ["embed_tokens", "q_proj"]}),
        ("nf4", True, {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}),
    ],
    ids=str,
)
def test_a_boot_from_prepared_weights_has_every_bit_of_one_that_merges(
    tmp_path: Path, precision: str, tied: bool, lora: dict[str, Any] | None
) -> None:
    settings = replace(made_of(tmp_path, tied, **(lora or LORA)), precision=precision)
    settings = settings if lora else replace(settings, adapter="none")
    made = prepare(settings, precision)
    ours, theirs = loader.load(made), loader.load(settings)
    assert (Card.read(Path(made.prepared)).adapter is None) == (lora is None)
    assert ours.model.config.tie_word_embeddings is theirs.model.config.tie_word_embeddings
    assert differing(ours.model, theirs.model) == []
    assert ours.model.generation_config.to_dict() == theirs.model.generation_config.to_dict()
    assert ours.choice == theirs.choice or lora is not LORA


BOOT = """
import sys, predict
from snb.settings import Settings
from snb.weights import loader
loaded = loader.load(Settings.from_environment())
print(loaded.choice.precision, sorted({"bitsandbytes", "peft"} & sys.modules.keys()))
"""


# A separate program imports torch and transformers, which takes six seconds.
def test_a_boot_that_neither_merges_nor_holds_nf4_imports_neither_peft_nor_bitsandbytes(
    tmp_path: Path,
) -> None:
    settings = prepare(made_of(tmp_path), "int8")
    environment = {**os.environ, "SNB_BASE_MODEL": settings.base_model, "SNB_ADAPTER": settings.adapter}
    environment |= {"SNB_PREPARED": settings.prepared, "SNB_CONTEXT": "1536"}
    done = subprocess.run([sys.executable, "-c", BOOT], env=environment, capture_output=True, text=True)
    assert done.stdout == "int8 []\n", done.stderr


def test_a_card_that_does_not_run_their_precision_is_refused_with_the_way_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = prepare(made_of(tmp_path), "bf16")
    monkeypatch.setattr(Device, "find", lambda _: CARDS[0])
    with pytest.raises(
        DeviceUnusable, match=r"prepared in bf16; .*scripts/prepare-weights.*SNB_PREPARED=none"
    ):
        loader.load(settings)


def test_a_gpu_without_bf16_computes_in_fp16_from_the_same_prepared_weights(
    kept: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = loader.load(kept).model(IDS).logits.float()

    def half(*given: Any) -> Any:
        return replace(choose(*given), compute_dtype=torch.float16)

    monkeypatch.setattr(loader, "choose", half)
    model = loader.load(kept).model
    layer = model.model.layers[0].mlp.down_proj
    assert (layer.compute_dtype, layer.weight.quant_state.dtype) == (torch.float16, torch.float16)
    assert {p.dtype for p in model.parameters() if p.is_floating_point()} == {torch.float16}
    logits = model(IDS).logits.float()
    assert torch.nn.functional.cosine_similarity(logits, expected, dim=-1).min() > 0.999


# Which weights a boot takes


def test_the_image_s_own_are_found_wherever_downloads_are_kept_unless_there_are_others(
    kept: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "ROOT", tmp_path)
    settings, own = replace(kept, weights_dir=tmp_path / "home", prepared="auto"), tmp_path / "weights"
    assert prepared.find(settings) is None
    for place in (own, settings.weights_dir):
        shutil.copytree(kept.prepared, place / prepared.FOLDER)
        found = prepared.find(settings)
        assert found
        assert found.folder.parent == place


def test_weights_prepared_on_another_machine_are_served_without_base_or_adapter(
    kept: Settings, tmp_path: Path
) -> None:
    asked = replace(kept, base_model=str(tmp_path / "base"), adapter=str(tmp_path / "adapter"))
    service = Service(replace(asked, context=4096, path="eager"))
    metrics: dict[str, Any] = {}
    list(service.answer(Request.checked(user_message="Oui ?", max_tokens=1), metrics.__setitem__))
    assert metrics["output_token_count"] == 1
    for other in (
        str(tmp_path / "other"),
        "school/base",
    ):  # a repository of the folder's name is another base
        with pytest.raises(PreparedMismatch, match="with base the folder base, and the settings ask for"):
            prepared.find(replace(asked, base_model=other))


def test_prepared_weights_on_the_hub_are_fetched_whole_and_used_again_or_refused_before_a_shard(
    kept: Settings, tmp_path: Path
) -> None:
    files = {path.name: path.read_bytes() for path in Path(kept.prepared).iterdir()}
    with LoopbackHub() as server:
        commit = server.push("eva/spinoza-nf4", {**files, "README.md": b"#"})
        settings = replace(kept, prepared="eva/spinoza-nf4", weights_dir=tmp_path)
        hub = Hub(endpoint=server.url)
        with pytest.raises(PreparedMismatch):
            prepared.find(replace(settings, precision="int8"), hub)
        assert server.asked("GET", ".safetensors") == []
        found = prepared.find(settings, hub)
        assert found
        assert found.folder == tmp_path / f"eva--spinoza-nf4@{commit[:12]}"
        assert not (found.folder / "README.md").exists()
        (tmp_path / "opened").touch()  # by the umask alone
        assert modes(found.folder) == modes(Path(kept.prepared)) == modes(tmp_path)
        assert differing(loader.load_prepared(found, settings).model, loader.load(kept).model) == []
        server.requests.clear()
        assert prepared.find(settings, hub) == found
        assert server.requests == []
        with pytest.raises(PreparedMismatch):
            prepared.find(replace(settings, precision="int8"), hub)


# What is refused


def test_another_precision_base_or_adapter_is_refused_with_all_faults_at_once(
    kept: Settings, tmp_path: Path
) -> None:
    other = made_of(tmp_path / "other", target_modules=["k_proj"])
    tiny_model(seed=5).save_pretrained(other.base_model, max_shard_size="100KB")
    asked = replace(kept, base_model=other.base_model, adapter=other.adapter, precision="int8")
    with pytest.raises(PreparedMismatch) as refused:
        loader.load(asked)
    holds, base, adapter = refused.value.faults
    assert "holds nf4, and SNB_PRECISION asks for int8" in holds
    assert "base the folder base, and the settings ask for" in base
    assert "adapter the folder adapter" in adapter
    assert "scripts/prepare-weights" in str(refused.value)
    assert "SNB_PREPARED=none" in str(refused.value)


def test_the_adapter_is_told_apart_by_its_bytes(kept: Settings, tmp_path: Path) -> None:
    shutil.copytree(kept.adapter, tmp_path / "adapter")
    assert prepared.find(replace(kept, adapter=str(tmp_path / "adapter")))
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(PreparedMismatch, match="adapter"):
        prepared.find(replace(kept, adapter=str(tmp_path / "adapter")))
    with pytest.raises(PreparedMismatch, match="and the settings ask for none"):
        prepared.find(replace(kept, adapter="none"))


@pytest.mark.parametrize(
    ("role", "changes"),
    [
        ("base", {"base_revision": "b" * 40}),
        ("base", {"base_model": "Qwen/Qwen2.5-7B-Instruct"}),
        ("adapter", {"adapter_revision": "v2"}),
        ("adapter", {"adapter": "eva/other"}),
    ],
    ids=str,
)
def test_a_repository_is_known_by_name_and_revision(
    ready: Settings, role: str, changes: dict[str, str]
) -> None:
    pinned = Settings()
    edit(
        ready,
        base={"name": pinned.base_model, "revision": "main", "commit": "a" * 40, "sha256": ""},
        adapter={"name": pinned.adapter, "revision": "main", "commit": "c" * 40, "sha256": ""},
    )
    card = Card.read(Path(ready.prepared))
    for revision in ("main", "a" * 40):
        assert list(card.faults(replace(pinned, base_revision=revision))) == []
    [fault] = card.faults(replace(replace(pinned, base_revision="main"), **changes))  # type: ignore[arg-type]
    assert f"is made with {role} " in fault


def test_a_newer_format_is_refused_whatever_else_its_card_says(ready: Settings) -> None:
    edit(ready, format=prepared.FORMAT + 1, base="of tomorrow", precision=None)
    with pytest.raises(PreparedMismatch, match="has format 3, and this version reads up to 2"):
        loader.load(ready)


def test_of_the_format_before_nf4_is_read_and_int8_refused_with_what_to_type(ready: Settings) -> None:
    edit(ready, format=1)
    assert Card.read(Path(ready.prepared)).precision == "nf4"
    edit(ready, format=1, precision="int8")
    with pytest.raises(
        PreparedMismatch, match=r"int8 in the format of bitsandbytes.*prepare-weights --precision int8"
    ):
        prepared.find(ready)


WRONG: list[dict[str, Any]] = [
    *({"precision": "int3"}, {"precision": ["nf4"]}, {"quality": {"texts": 1}}, {"quality": {}}),
    *({"base": []}, {"adapter": {"name": 1}}, {"format": None}, {"of_tomorrow": 1}),
]


@pytest.mark.parametrize("changes", WRONG, ids=str)
def test_a_card_with_a_wrong_field_is_refused(ready: Settings, changes: dict[str, Any]) -> None:
    edit(ready, **changes)
    with pytest.raises(WeightsMissing, match=f"no readable {CARD}"):
        prepared.find(ready)
    (Path(ready.prepared) / CARD).write_text("{}")
    with pytest.raises(WeightsMissing, match=f"no readable {CARD}"):
        prepared.find(ready)


def test_a_base_without_its_files_is_told_where_prepared_weights_are_compared_with_it(
    kept: Settings, tmp_path: Path
) -> None:
    with pytest.raises(WeightsMissing, match=r"config\.json is absent"):
        prepared.find(replace(kept, base_model=str(tmp_path)))


def test_what_is_altered_or_absent_is_refused_by_name(ready: Settings) -> None:
    path = shard(ready, -1)
    *whole, last = path.read_bytes()
    path.write_bytes(bytes([*whole, last ^ 1]))
    with pytest.raises(WeightsMissing, match=f"{path.name} was altered.*scripts/prepare-weights"):
        loader.load(ready)
    for name in (path.name, "config.json", NAME, CARD):
        (Path(ready.prepared) / name).unlink()
        with pytest.raises(WeightsMissing, match=f"{name}.*scripts/prepare-weights"):
            loader.load(ready)


# Preparing


def interrupted(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a preparation that is interrupted, as by Ctrl-C, once it has printed two lines."""
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "say", say)
        with pytest.raises(KeyboardInterrupt):
            prepare(settings)


def test_an_interrupted_run_goes_on_after_its_last_whole_shard(
    kept: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(kept, weights_dir=tmp_path)
    interrupted(settings, monkeypatch)
    draft = replace(settings, prepared=str(tmp_path / "made-nf4.part"))
    first = written(draft)
    assert len(first) == 2
    assert not (tmp_path / "made-nf4").exists()
    shard(draft, 1).write_bytes(b"half of it")  # as a full disk leaves it
    made = prepare(settings)
    assert contents(made) == contents(kept)
    assert written(made)[shard(made, 0).name] == first[shard(made, 0).name]
    assert not Path(draft.prepared).exists()


def test_a_half_made_folder_is_not_taken_nor_gone_on_with_for_another_recipe(
    kept: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(kept, weights_dir=tmp_path, adapter="none")
    monkeypatch.setattr(prepared, "FOLDER", "made-nf4")
    interrupted(settings, monkeypatch)
    assert prepared.find(replace(settings, prepared="auto")) is None
    assert contents(prepare(replace(settings, adapter=kept.adapter))) == contents(kept)


def test_a_whole_folder_is_left_alone_and_a_damaged_one_is_made_anew(kept: Settings, tmp_path: Path) -> None:
    settings = replace(kept, weights_dir=tmp_path)
    made = prepare(settings)
    before = written(made)
    prepare(settings)
    assert written(made) == before
    shard(made).unlink()
    assert contents(prepare(settings)) == contents(kept)
    output = Path(made.prepared)
    preparation.prepare(preparation.Recipe.of(settings, "int8"), output)  # takes the place of the old one
    preparation.prepare(preparation.Recipe.of(settings, "nf4"), output)
    assert contents(made) == contents(kept)
    assert list(tmp_path.glob("made*")) == [output]


def test_a_disk_that_is_too_small_is_known_before_anything_is_written(
    kept: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = preparation.Recipe.of(kept, "nf4")
    needed = Footprint(recipe.config).weights("nf4")
    monkeypatch.setattr(preparation, "free_bytes", lambda folder: MARGIN + needed - 1)
    with pytest.raises(DiskFull, match=f"{needed:,} bytes to write.*--output DISK/prepared, a new folder"):
        preparation.prepare(recipe, tmp_path / "one")
    assert not list(tmp_path.rglob("*.safetensors"))
    monkeypatch.setattr(preparation, "free_bytes", lambda folder: MARGIN + needed)
    preparation.prepare(recipe, tmp_path / "one")


def test_a_base_with_a_weight_too_many_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    settings = made_of(tmp_path)
    part = next(Path(settings.base_model).glob("*.safetensors"))
    save_file({**load_file(part), "model.norm.bias": torch.ones(64)}, part, {"format": "pt"})
    with pytest.raises(WeightsMissing, match=r"model\.norm\.bias is .*not part of the model"):
        prepare(replace(settings, adapter="none"))
    assert not list(settings.weights_dir.rglob("*.safetensors"))


# Quality


def test_scores_are_those_from_which_the_answer_is_taken(tmp_path: Path) -> None:
    base = str(save_tiny(tmp_path, max_position_embeddings=4096))
    loaded = loader.load(Settings(base_model=base, adapter="none", device="cpu", precision="fp32"))
    prompt, answer = next(quality.texts(loaded, 4096))
    scores = [(quality.scores(loaded, prompt, answer), answer)]
    labels = torch.tensor([[-100] * len(prompt) + answer])
    with torch.inference_mode():
        loss = loaded.model(torch.tensor([prompt + answer]), labels=labels).loss.item()
    assert quality.comparison(scores, scores).losses == pytest.approx((loss, loss), rel=1e-5)


def test_a_comparison_is_of_distributions_and_of_the_likeliest_tokens() -> None:
    one = [(torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), [0, 1])]
    other = [(torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), [0, 1])]
    compared = quality.comparison(one, other)
    probabilities = torch.tensor([0.0, 1.0, 0.0]).softmax(0)
    expected = float(probabilities[1] - probabilities[0])  # the logarithms differ by 1 at two tokens
    assert compared.mean_divergence == pytest.approx(expected / 2)
    assert compared.worst_divergence == pytest.approx(expected)
    assert compared.same_choice == 0.5


@pytest.fixture
def chosen(kept: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment asks for the tiny base and adapter."""
    environment = {"SNB_BASE_MODEL": kept.base_model, "SNB_ADAPTER": kept.adapter, "SNB_CONTEXT": "4096"}
    for variable, value in {**environment, "SNB_WEIGHTS_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(variable, value)


@pytest.mark.usefixtures("chosen")
def test_the_script_prepares_and_rates_what_a_boot_takes(
    kept: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quality, "TEXTS", quality.TEXTS[:2])
    made = tmp_path / "prepared"
    assert scripts.code("prepare-weights", "--precision", "nf4", "--output", str(made)) == 0
    assert capsys.readouterr().out == f"{made}\n"
    found = prepared.find(replace(kept, prepared=str(made)))
    assert found
    assert found.card.quality
    assert found.card.quality.divergence > 0
    assert found.card.quality.tokens == 2 * quality.TOKENS


@pytest.mark.usefixtures("chosen")
def test_a_folder_of_the_users_own_is_refused_before_any_work_and_an_empty_one_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "models" / "own.gguf"
    own.parent.mkdir()
    own.touch()
    with monkeypatch.context() as patch:
        patch.chdir(own.parent)
        patch.setattr(preparation.Recipe, "of", lambda *_: pytest.fail("it went to work"))
        (tmp_path / "new.part").mkdir()
        (tmp_path / "new.part" / "own.gguf").touch()
        taken = {".": "models/prepared", own.parent: "models/prepared", tmp_path / "new": "new/prepared"}
        for output, place in taken.items():
            with pytest.raises(preparation.OutputTaken, match=f"--output {tmp_path / place}"):
                scripts.code("prepare-weights", "--precision", "nf4", "--output", str(output))
        with pytest.raises(preparation.OutputTaken, match=r"mount point.*--output /prepared"):
            scripts.code("prepare-weights", "--precision", "nf4", "--output", "/")
    assert own.exists()
    own.unlink()
    options = ("--precision", "nf4", "--skip-quality", "--output", str(own.parent))
    for _ in range(2):  # the second time it is complete
        assert scripts.code("prepare-weights", *options) == 0
        assert capsys.readouterr().out == f"{own.parent}\n"


@pytest.mark.usefixtures("chosen")
def test_prepared_weights_are_no_further_from_those_merged_at_boot_than_is_printed(
    kept: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not exactly equal: a product's rounding may depend on where a weight lies in memory."""
    monkeypatch.setattr(quality, "TEXTS", quality.TEXTS[:1])
    assert scripts.code("check-quality", "nf4", kept.prepared) == 0
    assert "divergence: 0.0000 nats" in capsys.readouterr().out
