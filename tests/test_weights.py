"""Weights are whole, of the right commit and free of code before they are used; the hub is on loopback."""

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hub import Fault, LoopbackHub, loopback_hub
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from tiny import save_tiny

from snb import weights
from snb.checkpoint import INDEX, inspect, shard_fault
from snb.errors import BadSetting, DownloadFailed, WeightsMissing
from snb.hub import MARGIN, Hub
from snb.lock import NAME, Lock, verify
from snb.settings import ROOT, Settings

BASE, ADAPTER = "school/base", "school/adapter"
SHARD = "model-00002-of-00006.safetensors"
TOKEN = "hf_never_to_be_seen"
MIB = 1 << 20


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def files(tiny: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in tiny.iterdir()}


@pytest.fixture
def local(tmp_path: Path, files: dict[str, bytes]) -> Path:
    """A folder of the operator's own, without a lock."""
    folder = tmp_path / "local"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def server(files: dict[str, bytes]) -> Iterator[LoopbackHub]:
    with loopback_hub() as server:
        server.push(BASE, files)
        yield server


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(base_model=BASE, adapter=ADAPTER, weights_dir=tmp_path / "weights")


@pytest.fixture
def naps() -> list[float]:
    """The seconds that the client under test would have slept."""
    return []


@pytest.fixture
def hub(server: LoopbackHub, naps: list[float]) -> Hub:
    return Hub(endpoint=server.url, sleep=naps.append)


def locks(settings: Settings) -> list[Path]:
    return sorted(settings.weights_dir.rglob(f"{NAME}*"))


def change(path: Path, edit: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


# The download


def test_a_download_is_whole_and_its_lock_says_what_it_is(server, settings, hub, files):
    folder = weights.ensure_base(settings, hub)
    lock = Lock.read(folder)
    commit = server.commits[BASE, "main"]
    assert folder.parent == settings.weights_dir
    assert (lock.repository, lock.revision, lock.commit) == (BASE, "main", commit)
    assert {n: (e.size, e.sha256) for n, e in lock.files.items()} == {
        name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()
    }
    assert all((folder / name).read_bytes() == content for name, content in files.items())


def test_only_what_is_wanted_is_fetched(server, settings, hub, files):
    extra = {"pytorch_model.bin": b"pickle", "model.safetensors.bak": b"", "original/config.json": b"{}"}
    server.push(BASE, {**files, **extra})
    folder = weights.ensure_base(settings, hub)
    assert {path.name for path in folder.iterdir()} == {*files, NAME, ".cache"}


def test_a_verified_folder_is_used_without_a_request(server, settings, hub):
    folder = weights.ensure_base(settings, hub)
    server.requests.clear()
    assert weights.ensure_base(settings, hub) == folder
    assert server.requests == []


def test_an_interrupted_file_resumes_where_it_broke_off(server, settings, hub, naps):
    adapter = save({"lora_A": torch.rand(3 * MIB)})
    server.push(ADAPTER, {"adapter_config.json": b"{}", "adapter_model.safetensors": adapter})
    server.fail("GET", "adapter_model.safetensors", Fault(cut=11 * MIB))
    folder = weights.ensure_adapter(settings, hub)
    first, second = server.asked("GET", "adapter_model.safetensors")
    assert first.headers["Range"] is None
    assert second.headers["Range"] == f"bytes={10 * MIB}-"  # the library writes 10 MiB at a time
    assert (folder / "adapter_model.safetensors").read_bytes() == adapter
    assert naps == []


def test_a_busy_hub_is_asked_again_after_the_time_it_names(server, settings, hub, naps):
    server.fail("GET", "/revision/main", Fault(503), Fault(429, {"Retry-After": "120"}))
    server.fail("GET", SHARD, Fault(500))
    weights.ensure_base(settings, hub)
    assert len(naps) == 3
    assert 0 < naps[0] < naps[1] == 120


def test_a_hub_that_is_down_is_given_up_after_five_attempts_with_growing_pauses(server, settings, hub, naps):
    server.fail("GET", "/revision/main", *[Fault(503)] * 9)
    with pytest.raises(DownloadFailed, match="answered 503"):
        weights.ensure_base(settings, hub)
    assert len(server.requests) == 5
    assert len(naps) == 4
    assert 1 <= naps[0] <= 2 <= naps[1] <= 4 <= naps[2] <= 8 <= naps[3] <= 16


def test_an_unreachable_hub_is_a_download_failure(settings, naps):
    with loopback_hub() as gone:
        url = gone.url
    with pytest.raises(DownloadFailed, match="Connection refused"):
        weights.ensure_base(settings, Hub(endpoint=url, sleep=naps.append))
    assert len(naps) == 4


def test_a_failed_download_leaves_no_lock_and_the_next_one_keeps_what_is_whole(server, settings, hub, files):
    server.fail("GET", SHARD, *[Fault(503)] * 5)
    with pytest.raises(DownloadFailed, match="answered 503"):
        weights.ensure_base(settings, hub)
    assert locks(settings) == []
    before = {path.name for path in settings.weights_dir.rglob("model-*.safetensors")}
    server.requests.clear()
    folder = weights.ensure_base(settings, hub)
    fetched = {request.path.rsplit("/")[-1] for request in server.asked("GET", ".safetensors")}
    assert SHARD in fetched
    assert fetched | before == {name for name in files if name.endswith(".safetensors")}
    assert not fetched & before
    verify(folder)


@pytest.mark.parametrize("name", [SHARD, "config.json"])
def test_bytes_that_are_not_what_the_hub_declares_are_fetched_again_then_refused(
    server, settings, hub, naps, name
):
    server.fail("GET", f"/{name}", *[Fault(altered=True)] * 5)
    with pytest.raises(DownloadFailed, match=f": {name} is not what the hub declares"):
        weights.ensure_base(settings, hub)
    assert locks(settings) == []
    weights.ensure_base(settings, hub)
    assert len(naps) == 4


def test_a_truncated_leftover_is_fetched_again_though_the_library_trusts_it(server, settings, hub, files):
    folder = weights.ensure_base(settings, hub)
    (folder / NAME).unlink()
    touched = (folder / SHARD).stat().st_mtime
    (folder / SHARD).write_bytes(files[SHARD][:-1])
    os.utime(folder / SHARD, (touched, touched))
    weights.ensure_base(settings, hub)
    assert (folder / SHARD).read_bytes() == files[SHARD]


def test_a_disk_without_room_is_refused_with_the_numbers_before_a_byte_is_fetched(server, settings, hub):
    small = replace(hub, free_bytes=lambda _: 123_456)
    with pytest.raises(DownloadFailed, match=rf"{MARGIN:,} do not fit the 123,456 free"):
        weights.ensure_base(settings, small)
    assert server.asked("HEAD") == []


def test_only_the_missing_bytes_and_the_margin_need_room(server, settings, hub, files):
    folder = weights.ensure_base(settings, hub)
    (folder / SHARD).unlink()
    short = len(files[SHARD]) + MARGIN - 1
    with pytest.raises(DownloadFailed, match=f"{len(files[SHARD]):,} bytes"):
        weights.ensure_base(settings, replace(hub, free_bytes=lambda _: short))
    weights.ensure_base(settings, replace(hub, free_bytes=lambda _: short + 1))


def test_a_fault_of_the_disk_is_told_and_not_tried_again(server, settings, hub, naps):
    settings.weights_dir.write_text("a file where the folder should be")
    with pytest.raises(DownloadFailed, match="Not a directory"):
        weights.ensure_base(settings, hub)
    assert naps == []


# Refusals of the hub


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_closed_repository_names_hf_token_and_never_its_value(server, settings, hub, naps, caplog, token):
    caplog.set_level(logging.DEBUG)
    server.token = "another"
    keyed = replace(hub, token=token)
    with pytest.raises(DownloadFailed, match=r"answered 401.*HF_TOKEN, which is (not )?set") as caught:
        weights.ensure_base(settings, keyed)
    assert ("is not set" in str(caught.value)) == (token is None)
    assert TOKEN not in f"{caught.getrepr(chain=True, showlocals=False)} {caplog.text} {keyed}"
    assert (len(server.requests), naps) == (1, [])


def test_the_token_of_the_settings_opens_a_closed_repository(server, settings, hub):
    server.token = TOKEN
    verify(weights.ensure_base(settings, replace(hub, token=TOKEN)))


@pytest.mark.parametrize("fault", [Fault(403, {"X-Error-Code": "GatedRepo"}), Fault(403), Fault(404)])
def test_a_refusal_is_not_tried_again(server, settings, hub, naps, fault):
    server.fail("GET", "/revision/main", fault)
    with pytest.raises(DownloadFailed, match=f"answered {fault.status}"):
        weights.ensure_base(settings, hub)
    assert naps == []


def test_a_refusal_hidden_behind_an_error_of_the_library_is_not_tried_again(server, settings, hub, naps):
    server.fail("HEAD", "/config.json", Fault(403), Fault(403))
    with pytest.raises(DownloadFailed, match="answered 403"):
        weights.ensure_base(settings, hub)
    assert naps == []


def test_an_unknown_revision_is_named(settings, hub):
    with pytest.raises(DownloadFailed, match=r"school/base at v9.*SNB_BASE_REVISION"):
        weights.ensure_base(replace(settings, base_revision="v9"), hub)


@pytest.mark.parametrize("token", ["hf_a\nb", "hf_é", "hf_a b"])
def test_a_token_that_no_request_can_carry_is_refused_unquoted(settings, token):
    with pytest.raises(BadSetting, match="HF_TOKEN") as caught:
        weights.ensure_base(replace(settings, hf_token=token))
    assert token not in str(caught.value)


# Revisions and locks


def test_another_revision_is_not_satisfied_by_the_old_folder(server, settings, hub, files):
    old = weights.ensure_base(settings, hub)
    commit = server.push(BASE, {**files, "generation_config.json": b'{"top_k": 1}'})
    new = weights.ensure_base(replace(settings, base_revision=commit), hub)
    assert new != old
    assert (new / "generation_config.json").read_bytes() == b'{"top_k": 1}'


def test_a_branch_that_has_moved_on_is_neither_asked_for_nor_mixed_in(server, settings, hub, files):
    folder = weights.ensure_base(settings, hub)
    server.push(BASE, {**files, "generation_config.json": b"{}"})
    server.requests.clear()
    assert weights.ensure_base(settings, hub) == folder
    assert server.requests == []
    (folder / "generation_config.json").unlink()
    assert weights.ensure_base(settings, hub) == folder
    assert (folder / "generation_config.json").read_bytes() == files["generation_config.json"]


def test_the_commit_that_a_branch_stood_for_is_satisfied_by_its_folder(server, settings, hub):
    folder = weights.ensure_base(settings, hub)
    server.requests.clear()
    assert weights.ensure_base(replace(settings, base_revision=server.commits[BASE, "main"]), hub) == folder
    assert server.requests == []


@pytest.mark.parametrize("field", ["repository", "revision"])
def test_a_lock_of_something_else_is_not_used(server, settings, hub, field):
    folder = weights.ensure_base(settings, hub)
    change(folder / NAME, lambda lock: lock.update({field: "other", "commit": "other"}))
    with pytest.raises(WeightsMissing, match="is not in"):
        weights.check(weights.sources(settings)[-1], settings)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": {"a": 1}}'])
def test_a_damaged_lock_is_no_lock(settings, hub, text):
    folder = weights.ensure_base(settings, hub)
    (folder / NAME).write_text(text)
    with pytest.raises(WeightsMissing, match="no readable"):
        verify(folder)
    verify(weights.ensure_base(settings, hub))


def test_truncated_altered_and_missing_files_are_all_in_one_error(settings, hub, files):
    folder = weights.ensure_base(settings, hub)
    (folder / SHARD).write_bytes(files[SHARD][:-1])
    (folder / "tokenizer.json").unlink()
    (folder / "config.json").write_bytes(files["config.json"][:-1] + b" ")
    with pytest.raises(WeightsMissing, match="scripts/download-weights") as caught:
        verify(folder)
    size = len(files[SHARD])
    assert sorted(caught.value.faults) == [
        "config.json was altered: its sha256 is not the recorded one",
        f"{SHARD} has {size - 1} bytes, not {size}",
        "tokenizer.json is absent",
    ]


def test_a_damaged_folder_is_repaired_by_fetching_only_what_is_damaged(server, settings, hub, files):
    folder = weights.ensure_base(settings, hub)
    (folder / SHARD).write_bytes(bytes(len(files[SHARD])))
    server.requests.clear()
    verify(weights.ensure_base(settings, hub))
    assert [request.path.rsplit("/")[-1] for request in server.asked("GET", ".safetensors")] == [SHARD]


def test_offline_nothing_is_asked_and_the_faults_are_told(server, settings, hub, monkeypatch):
    folder = weights.ensure_base(settings, hub)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    server.requests.clear()
    assert weights.ensure_base(settings, hub) == folder
    (folder / "config.json").unlink()
    with pytest.raises(WeightsMissing, match=r"config\.json is absent"):
        weights.ensure_base(settings, hub)
    with pytest.raises(WeightsMissing, match="school/adapter at main is not in"):
        weights.ensure_adapter(settings, hub)
    assert server.requests == []


# What is refused by its content


def test_an_index_that_names_a_missing_shard_is_refused_before_any_is_fetched(server, settings, hub, files):
    del files[SHARD]
    server.push(BASE, files)
    with pytest.raises(WeightsMissing, match=f"{SHARD}, which holds weights, is absent"):
        weights.ensure_base(settings, hub)
    assert server.asked("GET", ".safetensors") == []
    assert locks(settings) == []


@pytest.mark.parametrize("name", ["../../bystander", "sub/model.safetensors"])
def test_an_index_that_points_out_of_the_folder_is_refused(server, settings, hub, files, name):
    bystander = settings.weights_dir.parent / "bystander"
    bystander.write_text("untouched")
    files[INDEX] = json.dumps({"weight_map": {"w": name}}).encode()
    server.push(BASE, {**files, name: b"from outside"})
    with pytest.raises(WeightsMissing, match=f"{name}, which holds weights, is absent"):
        weights.ensure_base(settings, hub)
    assert bystander.read_text() == "untouched"


def test_a_repository_of_pickles_is_refused_by_name_and_not_fetched(server, settings, hub, files):
    described = {name: content for name, content in files.items() if "safetensors" not in name}
    server.push(BASE, {**described, "pytorch_model.bin": b"pickle"})
    server.push(ADAPTER, {"adapter_config.json": b"{}", "adapter_model.bin": b"pickle"})
    with pytest.raises(WeightsMissing, match=r"pytorch_model\.bin: pickles can run code"):
        weights.ensure_base(settings, hub)
    with pytest.raises(WeightsMissing, match=r"adapter_model\.bin: pickles can run code"):
        weights.ensure_adapter(settings, hub)
    assert server.asked("GET", ".bin") == []


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_repository_with_code_of_its_own_is_refused(server, settings, hub, files, name):
    files[name] = json.dumps({**json.loads(files[name]), "auto_map": {"AutoModel": "x.Y"}}).encode()
    server.push(BASE, files)
    with pytest.raises(WeightsMissing, match=f"{name} wants code"):
        weights.ensure_base(settings, hub)
    assert server.asked("GET", ".safetensors") == []


def test_a_hub_file_that_is_whole_but_no_safetensors_gets_no_lock(server, settings, hub, files):
    server.push(BASE, {**files, SHARD: b"not tensors"})
    with pytest.raises(WeightsMissing, match=SHARD):
        weights.ensure_base(settings, hub)
    assert locks(settings) == []


# Local folders


def test_a_whole_local_folder_is_used_as_it_is(server, settings, hub, local):
    assert weights.ensure_base(replace(settings, base_model=str(local)), hub) == local
    assert server.requests == []
    assert not (local / NAME).exists()


def test_a_truncated_shard_is_refused_by_name(settings, hub, local, files):
    size = len(files[SHARD])
    (local / SHARD).write_bytes(files[SHARD][:-1])
    with pytest.raises(WeightsMissing) as caught:
        weights.ensure_base(replace(settings, base_model=str(local)), hub)
    assert caught.value.faults == [f"{SHARD} has {size - 1} bytes where its header declares {size}"]


def test_every_fault_of_a_local_folder_is_in_one_error(local):
    for name in ("tokenizer.json", SHARD):
        (local / name).unlink()
    (local / "config.json").write_text("<html>")
    with pytest.raises(WeightsMissing) as caught:
        inspect(local, "base")
    assert caught.value.faults == [
        "tokenizer.json is absent",
        "config.json is not a readable JSON object",
        f"{SHARD}, which holds weights, is absent",
    ]


@pytest.mark.parametrize("index", ["{}", '{"weight_map": {}}', '{"weight_map": {"w": 1}}', "[]"])
def test_an_index_without_shards_is_refused(local, index):
    (local / INDEX).write_text(index)
    with pytest.raises(WeightsMissing, match=INDEX):
        inspect(local, "base")


def test_one_whole_file_goes_before_an_index(local):
    for path in local.glob("model-*"):
        path.unlink()
    save_file({"w": torch.rand(3)}, local / "model.safetensors", {"format": "pt"})
    inspect(local, "base")
    (local / INDEX).unlink()
    inspect(local, "base")


def test_a_shard_cut_anywhere_has_a_fault(tmp_path):
    whole = save({"a": torch.rand(2, 2), "b": torch.ones(3)}, {"format": "pt"})
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        assert "cut" in (shard_fault(tmp_path / "cut") or ""), length
    (tmp_path / "cut").write_bytes(whole)
    assert shard_fault(tmp_path / "cut") is None


@given(header=st.binary(max_size=40) | st.text(max_size=20).map(json.dumps).map(str.encode))
def test_a_header_of_anything_is_a_fault_and_no_crash(tmp_path_factory, header):
    path = tmp_path_factory.mktemp("any") / "any"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert "any" in (shard_fault(path) or "")


# Sources


def test_the_pin_gives_its_revision_to_its_own_repository_only():
    adapter, base = weights.sources(Settings())
    assert (base.name, base.revision) == (
        "Qwen/Qwen2.5-14B-Instruct",
        "cf98f3b3bbb457ad9e2bb7baf9a0125b6b88caa8",
    )
    assert (adapter.name, adapter.revision) == ("FJDaz/qwen-spinoza-niveau-b", "main")
    assert weights.sources(Settings(base_model="Qwen/Qwen3-4B"))[-1].revision == "main"
    assert weights.sources(Settings(base_revision="v2"))[-1].revision == "v2"


def test_no_adapter_is_no_folder():
    assert weights.ensure_adapter(Settings(adapter="none")) is None
    assert [source.role for source in weights.sources(Settings(adapter="none"))] == ["base"]


@pytest.mark.parametrize("name", ["/no/such/folder", "./here", "single", "a/b/c", "a b/c"])
def test_a_name_that_is_neither_folder_nor_repository_is_refused(settings, hub, server, name):
    with pytest.raises(WeightsMissing, match="is no folder"):
        weights.ensure_base(replace(settings, base_model=name), hub)
    assert server.requests == []


# The script


def run_script(settings: Settings, server: LoopbackHub, *options: str) -> subprocess.CompletedProcess[str]:
    chosen = {
        "SNB_BASE_MODEL": settings.base_model,
        "SNB_ADAPTER": "none",
        "SNB_WEIGHTS_DIR": str(settings.weights_dir),
        "HF_ENDPOINT": server.url,
        "HF_TOKEN": TOKEN,
    }
    command = [sys.executable, ROOT / "scripts" / "download-weights", *options]
    return subprocess.run(command, env={**os.environ, **chosen}, capture_output=True, text=True, check=False)


def test_the_script_downloads_verifies_and_tells_a_fault_in_one_line(server, settings):
    server.token = TOKEN
    done = run_script(settings, server)
    folder = next(settings.weights_dir.iterdir())
    assert (done.returncode, done.stdout) == (0, f"base {folder}\n")
    (folder / SHARD).unlink()
    failed = run_script(settings, server, "--verify")
    assert failed.returncode == 1
    assert failed.stderr.splitlines() == [
        f"WEIGHTS_MISSING: {SHARD} is absent. Run scripts/download-weights to fetch these again into {folder}"
    ]
    assert TOKEN not in done.stderr + failed.stderr
