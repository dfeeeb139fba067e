"""Weights are whole, of the right commit and free of code before they are used; the hub is on loopback."""

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import save, save_file

from snb.errors import AdapterMismatch, AdapterUnsupported, BadSetting, DownloadFailed, WeightsMissing
from snb.prompt import END, START
from snb.settings import ROOT, Settings
from snb.weights import fetch
from snb.weights.checkpoint import INDEX, inspect, read_config, shard_fault
from snb.weights.hub import MARGIN, Hub
from snb.weights.lock import NAME, Entry, Lock, alone, digests, verify
from tests.hub import Fault, LoopbackHub, loopback_hub
from tests.tiny import save_tiny, tiny_model

BASE, ADAPTER = "school/base", "school/adapter"
SHARD = "model-00002-of-00006.safetensors"
TOKEN = "hf_never_to_be_seen"
PAGE = Fault(headers={"Content-Type": "text/html"}, body=b"<!doctype html>\n<title>Wi-Fi du lycee</title>")
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
    folder = fetch.ensure_base(settings, hub)
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
    folder = fetch.ensure_base(settings, hub)
    assert {path.name for path in folder.iterdir()} == {*files, NAME, ".cache"}


def test_a_verified_folder_is_used_without_a_request(server, settings, hub):
    folder = fetch.ensure_base(settings, hub)
    server.requests.clear()
    assert fetch.ensure_base(settings, hub) == folder
    assert server.requests == []


def test_an_interrupted_file_resumes_where_it_broke_off(server, settings, hub, naps):
    adapter = save({"lora_A": torch.rand(3 * MIB)})
    server.push(
        ADAPTER, {"adapter_config.json": b'{"peft_type": "LORA"}', "adapter_model.safetensors": adapter}
    )
    server.fail("GET", "adapter_model.safetensors", Fault(cut=11 * MIB))
    folder = fetch.ensure_adapter(settings, hub)
    first, second = server.asked("GET", "adapter_model.safetensors")
    assert first.headers["Range"] is None
    assert second.headers["Range"] == f"bytes={10 * MIB}-"  # the library writes 10 MiB at a time
    assert (folder / "adapter_model.safetensors").read_bytes() == adapter
    assert naps == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "120"},
        {"RateLimit": '"api";r=0;t=120', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'},
        {"Retry-After": "3", "RateLimit": '"api";r=0;t=120'},
    ],
)
def test_a_busy_hub_is_asked_again_after_the_time_it_names(server, settings, hub, naps, headers):
    server.fail("GET", "/revision/main", Fault(503), Fault(429, headers))
    server.fail("GET", SHARD, Fault(500))
    fetch.ensure_base(settings, hub)
    assert len(naps) == 3
    assert 0 < naps[0] < naps[1] == 120


def test_a_limit_that_is_not_reached_asks_for_no_pause(server, settings, hub, naps):
    server.fail("GET", "/revision/main", Fault(503, {"RateLimit": '"api";r=499;t=120'}))
    fetch.ensure_base(settings, hub)
    assert naps[0] <= 2


def test_a_hub_that_is_down_is_given_up_after_five_attempts_with_growing_pauses(server, settings, hub, naps):
    server.fail("GET", "/revision/main", *[Fault(503)] * 9)
    with pytest.raises(DownloadFailed, match="answered 503"):
        fetch.ensure_base(settings, hub)
    assert len(server.requests) == 5
    assert len(naps) == 4
    assert 1 <= naps[0] <= 2 <= naps[1] <= 4 <= naps[2] <= 8 <= naps[3] <= 16


def test_an_unreachable_hub_is_a_download_failure(settings, naps):
    with loopback_hub() as gone:
        url = gone.url
    with pytest.raises(DownloadFailed, match="Connection refused"):
        fetch.ensure_base(settings, Hub(endpoint=url, sleep=naps.append))
    assert len(naps) == 4


def test_a_failed_download_leaves_no_lock_and_the_next_one_keeps_what_is_whole(server, settings, hub, files):
    server.fail("GET", SHARD, *[Fault(503)] * 5)
    with pytest.raises(DownloadFailed, match="answered 503"):
        fetch.ensure_base(settings, hub)
    assert locks(settings) == []
    before = {path.name for path in settings.weights_dir.rglob("model-*.safetensors")}
    server.requests.clear()
    folder = fetch.ensure_base(settings, hub)
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
        fetch.ensure_base(settings, hub)
    assert locks(settings) == []
    fetch.ensure_base(settings, hub)
    assert len(naps) == 4


def test_a_truncated_leftover_is_fetched_again_though_the_library_trusts_it(server, settings, hub, files):
    folder = fetch.ensure_base(settings, hub)
    (folder / NAME).unlink()
    touched = (folder / SHARD).stat().st_mtime
    (folder / SHARD).write_bytes(files[SHARD][:-1])
    os.utime(folder / SHARD, (touched, touched))
    fetch.ensure_base(settings, hub)
    assert (folder / SHARD).read_bytes() == files[SHARD]


def test_a_disk_without_room_is_refused_with_the_numbers_before_a_byte_is_fetched(server, settings, hub):
    small = replace(hub, free_bytes=lambda _: 123_456)
    with pytest.raises(DownloadFailed, match=rf"{MARGIN:,} do not fit the 123,456 free"):
        fetch.ensure_base(settings, small)
    assert server.asked("HEAD") == []


def test_only_the_missing_bytes_and_the_margin_need_room(server, settings, hub, files):
    folder = fetch.ensure_base(settings, hub)
    (folder / SHARD).unlink()
    short = len(files[SHARD]) + MARGIN - 1
    with pytest.raises(DownloadFailed, match=f"{len(files[SHARD]):,} bytes"):
        fetch.ensure_base(settings, replace(hub, free_bytes=lambda _: short))
    fetch.ensure_base(settings, replace(hub, free_bytes=lambda _: short + 1))


def test_a_fault_of_the_disk_is_told_and_not_tried_again(server, settings, hub, naps):
    settings.weights_dir.write_text("a file where the folder should be")
    with pytest.raises(DownloadFailed, match="cannot be written: File exists"):
        fetch.ensure_base(settings, hub)
    assert naps == []


# Refusals of the hub


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_closed_repository_names_hf_token_and_never_its_value(server, settings, hub, naps, caplog, token):
    caplog.set_level(logging.DEBUG)
    server.token = "another"
    keyed = replace(hub, token=token)
    with pytest.raises(DownloadFailed, match=r"answered 401.*HF_TOKEN, which is (not )?set") as caught:
        fetch.ensure_base(settings, keyed)
    assert ("is not set" in str(caught.value)) == (token is None)
    assert TOKEN not in f"{caught.getrepr(chain=True, showlocals=False)} {caplog.text} {keyed}"
    assert (len(server.requests), naps) == (1, [])


def test_the_token_of_the_settings_opens_a_closed_repository(server, settings, hub):
    server.token = TOKEN
    verify(fetch.ensure_base(settings, replace(hub, token=TOKEN)))


@pytest.mark.parametrize("fault", [Fault(403, {"X-Error-Code": "GatedRepo"}), Fault(403), Fault(404)])
def test_a_refusal_is_not_tried_again(server, settings, hub, naps, fault):
    server.fail("GET", "/revision/main", fault)
    with pytest.raises(DownloadFailed, match=f"answered {fault.status}"):
        fetch.ensure_base(settings, hub)
    assert naps == []


def test_a_refusal_hidden_behind_an_error_of_the_library_is_not_tried_again(server, settings, hub, naps):
    server.fail("HEAD", "/config.json", Fault(403), Fault(403))
    with pytest.raises(DownloadFailed, match="answered 403"):
        fetch.ensure_base(settings, hub)
    assert naps == []


def test_an_unknown_revision_is_named(settings, hub):
    with pytest.raises(DownloadFailed, match=r"school/base at v9.*SNB_BASE_REVISION"):
        fetch.ensure_base(replace(settings, base_revision="v9"), hub)


@pytest.mark.parametrize("token", ["hf_a\nb", "hf_é", "hf_a b"])
def test_a_token_that_no_request_can_carry_is_refused_unquoted(settings, token):
    with pytest.raises(BadSetting, match="HF_TOKEN") as caught:
        fetch.ensure_base(replace(settings, hf_token=token))
    assert token not in str(caught.value)


# What answers and is no hub


def test_a_login_page_in_place_of_the_hub_is_quoted_in_one_line_and_not_asked_again(
    server, settings, hub, naps
):
    server.fail("GET", "/revision/main", Fault(302, {"Location": "/login"}))
    server.fail("GET", "/login", PAGE)
    with pytest.raises(
        DownloadFailed, match=r"no listing of a repository: '<!doctype html>.*Wi-Fi"
    ) as caught:
        fetch.ensure_base(settings, hub)
    assert "HF_ENDPOINT" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert naps == []


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b'{"error": "who are you?"}',
        b"\xff\xfe\x00",
        b'{"id": "a/b", "sha": null, "siblings": []}',
        b'{"id": "a/b", "sha": "../../elsewhere", "siblings": []}',
        b'{"id": "a/b", "sha": "%s", "siblings": [{}]}' % (b"0" * 40),
    ],
)
def test_an_answer_that_is_no_listing_is_a_download_failure(server, settings, hub, naps, body):
    server.fail("GET", "/revision/main", Fault(body=body))
    with pytest.raises(DownloadFailed, match="what answered"):
        fetch.ensure_base(settings, hub)
    assert naps == []


def test_a_login_page_in_place_of_a_file_is_told(server, settings, hub, naps):
    server.fail("HEAD", SHARD, PAGE)
    with pytest.raises(DownloadFailed, match=r"has not the headers of a hub.*login page"):
        fetch.ensure_base(settings, hub)
    assert (naps, locks(settings)) == ([], [])


@pytest.mark.parametrize("longer", [0, 1])
def test_a_page_that_comes_as_a_file_is_never_taken_for_a_weight(server, settings, hub, files, longer):
    page = Fault(body=PAGE.body.ljust(len(files[SHARD]) + longer))
    server.fail("GET", SHARD, *[page] * 5)
    with pytest.raises(DownloadFailed, match=r"is not what the hub declares|another size than was declared"):
        fetch.ensure_base(settings, hub)
    assert locks(settings) == []
    assert (fetch.ensure_base(settings, hub) / SHARD).read_bytes() == files[SHARD]


@pytest.mark.parametrize("unlisted", [{"size"}, {"blobId", "lfs"}, {"size", "blobId", "lfs"}])
def test_a_mirror_that_lists_no_sizes_or_no_hashes_is_refused_at_once(server, settings, hub, naps, unlisted):
    server.unlisted = unlisted
    with pytest.raises(DownloadFailed, match=r"without size or hash.*partial mirror"):
        fetch.ensure_base(settings, hub)
    assert (len(server.requests), naps) == (1, [])


# Two at once


def test_of_two_that_want_one_repository_the_second_waits_and_only_verifies(server, settings, caplog):
    server.fail("GET", SHARD, Fault(503))
    with ThreadPoolExecutor() as pool:
        second: list[Future[Path]] = []

        def meanwhile(_: float) -> None:
            second.append(pool.submit(fetch.ensure_base, settings, Hub(endpoint=server.url)))
            deadline = time.monotonic() + 60
            while "waiting for it" not in caplog.text and time.monotonic() < deadline:
                time.sleep(0.01)

        first = fetch.ensure_base(settings, Hub(endpoint=server.url, sleep=meanwhile))
        assert second[0].result() == first
    assert len(server.asked("GET", "/revision/main")) == 1
    fetched = [request.path for request in server.asked("GET", ".safetensors")]
    assert len(fetched) == len({*fetched}) + 1  # the one that failed first


def test_what_is_verified_is_read_while_another_fills(server, settings, hub):
    folder = fetch.ensure_base(settings, hub)
    [lock] = settings.weights_dir.glob("*.lock")
    with alone(lock), ThreadPoolExecutor() as pool:
        assert pool.submit(fetch.ensure_base, settings, hub).result(timeout=60) == folder


def test_a_lock_is_free_once_its_holder_was_killed(tmp_path):
    hold = "import sys, time; from pathlib import Path; from snb.weights.lock import alone\n"
    hold += "with alone(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    command = [sys.executable, "-c", hold, str(tmp_path / "lock")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    with alone(tmp_path / "lock") as waited:
        assert not waited


# Revisions and locks


def test_another_revision_is_not_satisfied_by_the_old_folder(server, settings, hub, files):
    old = fetch.ensure_base(settings, hub)
    commit = server.push(BASE, {**files, "generation_config.json": b'{"top_k": 1}'})
    new = fetch.ensure_base(replace(settings, base_revision=commit), hub)
    assert new != old
    assert (new / "generation_config.json").read_bytes() == b'{"top_k": 1}'


def test_a_branch_that_has_moved_on_is_neither_asked_for_nor_mixed_in(server, settings, hub, files):
    folder = fetch.ensure_base(settings, hub)
    server.push(BASE, {**files, "generation_config.json": b"{}"})
    server.requests.clear()
    assert fetch.ensure_base(settings, hub) == folder
    assert server.requests == []
    (folder / "generation_config.json").unlink()
    assert fetch.ensure_base(settings, hub) == folder
    assert (folder / "generation_config.json").read_bytes() == files["generation_config.json"]


def test_the_commit_that_a_branch_stood_for_is_satisfied_by_its_folder(server, settings, hub):
    folder = fetch.ensure_base(settings, hub)
    server.requests.clear()
    assert fetch.ensure_base(replace(settings, base_revision=server.commits[BASE, "main"]), hub) == folder
    assert server.requests == []


@pytest.mark.parametrize("field", ["repository", "revision"])
def test_a_lock_of_something_else_is_not_used(server, settings, hub, field):
    folder = fetch.ensure_base(settings, hub)
    change(folder / NAME, lambda lock: lock.update({field: "other", "commit": "other"}))
    with pytest.raises(WeightsMissing, match="is not in"):
        fetch.check(fetch.sources(settings)[-1], settings)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": {"a": 1}}'])
def test_a_damaged_lock_is_no_lock(settings, hub, text):
    folder = fetch.ensure_base(settings, hub)
    (folder / NAME).write_text(text)
    with pytest.raises(WeightsMissing, match="no readable"):
        verify(folder)
    verify(fetch.ensure_base(settings, hub))


def test_truncated_altered_and_missing_files_are_all_in_one_error(settings, hub, files):
    folder = fetch.ensure_base(settings, hub)
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
    folder = fetch.ensure_base(settings, hub)
    (folder / SHARD).write_bytes(bytes(len(files[SHARD])))
    server.requests.clear()
    verify(fetch.ensure_base(settings, hub))
    assert [request.path.rsplit("/")[-1] for request in server.asked("GET", ".safetensors")] == [SHARD]


def test_offline_nothing_is_asked_and_the_faults_are_told(server, settings, hub, monkeypatch):
    folder = fetch.ensure_base(settings, hub)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    server.requests.clear()
    assert fetch.ensure_base(settings, hub) == folder
    (folder / "config.json").unlink()
    with pytest.raises(WeightsMissing, match=r"config\.json is absent"):
        fetch.ensure_base(settings, hub)
    with pytest.raises(WeightsMissing, match="school/adapter at main is not in"):
        fetch.ensure_adapter(settings, hub)
    assert server.requests == []


# What is refused by its content


def test_an_index_that_names_a_missing_shard_is_refused_before_any_is_fetched(server, settings, hub, files):
    del files[SHARD]
    server.push(BASE, files)
    with pytest.raises(WeightsMissing, match=f"{SHARD}, which holds weights, is absent"):
        fetch.ensure_base(settings, hub)
    assert server.asked("GET", ".safetensors") == []
    assert locks(settings) == []


@pytest.mark.parametrize("name", ["../../bystander", "sub/model.safetensors"])
def test_an_index_that_points_out_of_the_folder_is_refused(server, settings, hub, files, name):
    bystander = settings.weights_dir.parent / "bystander"
    bystander.write_text("untouched")
    files[INDEX] = json.dumps({"weight_map": {"w": name}}).encode()
    server.push(BASE, {**files, name: b"from outside"})
    with pytest.raises(WeightsMissing, match=f"{name}, which holds weights, is absent"):
        fetch.ensure_base(settings, hub)
    assert bystander.read_text() == "untouched"


def test_a_repository_of_pickles_is_refused_by_name_and_not_fetched(server, settings, hub, files):
    described = {name: content for name, content in files.items() if "safetensors" not in name}
    server.push(BASE, {**described, "pytorch_model.bin": b"pickle"})
    server.push(ADAPTER, {"adapter_config.json": b"{}", "adapter_model.bin": b"pickle"})
    with pytest.raises(WeightsMissing, match=r"pytorch_model\.bin: pickles can run code"):
        fetch.ensure_base(settings, hub)
    with pytest.raises(WeightsMissing, match=r"adapter_model\.bin: pickles can run code"):
        fetch.ensure_adapter(settings, hub)
    assert server.asked("GET", ".bin") == []


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_repository_with_code_of_its_own_is_refused(server, settings, hub, files, name):
    files[name] = json.dumps({**json.loads(files[name]), "auto_map": {"AutoModel": "x.Y"}}).encode()
    server.push(BASE, files)
    with pytest.raises(WeightsMissing, match=f"{name} wants code"):
        fetch.ensure_base(settings, hub)
    assert server.asked("GET", ".safetensors") == []


UNSERVED = {
    "another architecture": (
        {"architectures": ["Qwen3ForCausalLM"]},
        "Qwen3ForCausalLM, not Qwen2",
    ),
    "no architecture": ({"architectures": None}, "architectures in config.json is none"),
    "sliding window": (
        {"use_sliding_window": True, "sliding_window": 128, "max_window_layers": 1, "layer_types": None},
        "sliding_attention, not full_attention: without use_sliding_window",
    ),
    "dynamic rope": (
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
        "rope_type in config.json is dynamic, not default or linear",
    ),
    "dynamic rope, as it was written before": (
        {"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
        "rope_type in config.json is dynamic",
    ),
    "longrope": (
        {"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}},
        "rope_type in config.json is longrope",
    ),
    "yarn without a factor": (
        {"rope_parameters": {"rope_type": "yarn"}},
        "no Qwen2 model: .*factor",
    ),
    "quantised": (
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        "gptq, not none: name",
    ),
    "unknown activation": ({"hidden_act": "zigzag"}, "describes no Qwen2 model: KeyError 'zigzag'"),
    "text for a number": ({"hidden_size": "64"}, "describes no Qwen2 model: .*hidden_size"),
    "fewer ids": ({"vocab_size": 390}, "tokenizer.json has 391 ids, and vocab_size in config.json is 390"),
}
SERVED = {
    "not quantised": {"quantization_config": None},
    "as Qwen2.5 is": {"use_sliding_window": False, "sliding_window": 131072, "layer_types": None},
    "a window that no layer has": {"use_sliding_window": True, "max_window_layers": 2, "layer_types": None},
    "yarn, as Qwen's card says": {
        "rope_parameters": None,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
    },
    "yarn": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    "more ids": {"vocab_size": 512},
}


@pytest.mark.parametrize(("changes", "fault"), UNSERVED.values(), ids=UNSERVED)
def test_what_the_engine_cannot_serve_is_refused_before_a_shard_is_fetched(
    server, settings, hub, files, local, changes, fault
):
    change(local / "config.json", lambda config: config.update(changes))
    with pytest.raises(WeightsMissing, match=fault):
        inspect(local, "base")
    server.push(BASE, {**files, "config.json": (local / "config.json").read_bytes()})
    with pytest.raises(WeightsMissing, match=fault):
        fetch.ensure_base(settings, hub)
    assert server.asked("GET", ".safetensors") == []


@pytest.mark.parametrize("changes", SERVED.values(), ids=SERVED)
def test_what_the_engine_serves_passes(local, changes):
    change(local / "config.json", lambda config: config.update(changes))
    inspect(local, "base")


@pytest.mark.parametrize("token", [START, END])
def test_a_tokenizer_that_cannot_write_prompts_is_refused_before_a_shard_is_fetched(
    server, settings, hub, files, token
):
    files["tokenizer.json"] = files["tokenizer.json"].replace(token.encode(), "<｜User｜>".encode())
    server.push(BASE, files)
    with pytest.raises(WeightsMissing, match=re.escape(f"has no token {token},")):
        fetch.ensure_base(settings, hub)
    server.push(BASE, {**files, "tokenizer.json": b"{}"})
    with pytest.raises(WeightsMissing, match=r"tokenizer\.json is no tokenizer"):
        fetch.ensure_base(settings, hub)
    assert server.asked("GET", ".safetensors") == []


def test_what_was_downloaded_when_it_was_not_judged_is_refused_too(settings, hub):
    folder = fetch.ensure_base(settings, hub)
    change(folder / "config.json", lambda config: config.update(architectures=["Qwen3ForCausalLM"]))
    entry = Entry((folder / "config.json").stat().st_size, digests([folder / "config.json"])[0])
    lock = Lock.read(folder)
    replace(lock, files={**lock.files, "config.json": entry}).write(folder)
    with pytest.raises(WeightsMissing, match="Qwen3ForCausalLM"):
        fetch.check(fetch.sources(settings)[-1], settings)


def test_an_adapter_that_cannot_be_merged_is_refused_before_its_weights_are_fetched(server, settings, hub):
    server.push(ADAPTER, {"adapter_config.json": b'{"peft_type": "LOHA"}', "adapter_model.safetensors": b""})
    with pytest.raises(AdapterUnsupported, match="peft_type is 'LOHA'"):
        fetch.ensure_adapter(settings, hub)
    assert server.asked("GET", ".safetensors") == []


def test_an_adapter_of_another_base_is_refused_before_the_base_is_fetched(server, settings, hub, tmp_path):
    lora = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(tiny_model(hidden_size=32), lora).save_pretrained(tmp_path / "adapter")
    with pytest.raises(AdapterMismatch, match=r"has shape \(4, 32\)"):
        fetch.ensure_base(replace(settings, adapter=str(tmp_path / "adapter")), hub)
    assert server.asked("GET", ".safetensors") == []


@pytest.mark.parametrize(("name", "warned"), [("linear", False), ("as Qwen2.5 is", True)])
def test_a_context_that_is_longer_than_the_model_s_is_warned_of(local, caplog, name, warned):
    change(local / "config.json", lambda config: config.update(SERVED[name]))
    read_config(local, 4096)
    assert ("SNB_CONTEXT is 4096, and the model knows 1024 positions" in caplog.text) == warned


def test_a_hub_file_that_is_whole_but_no_safetensors_gets_no_lock(server, settings, hub, files):
    server.push(BASE, {**files, SHARD: b"not tensors"})
    with pytest.raises(WeightsMissing, match=SHARD):
        fetch.ensure_base(settings, hub)
    assert locks(settings) == []


# Local folders


def test_a_whole_local_folder_is_used_as_it_is(server, settings, hub, local):
    assert fetch.ensure_base(replace(settings, base_model=str(local)), hub) == local
    assert server.requests == []
    assert not (local / NAME).exists()


def test_a_truncated_shard_is_refused_by_name(settings, hub, local, files):
    size = len(files[SHARD])
    (local / SHARD).write_bytes(files[SHARD][:-1])
    with pytest.raises(WeightsMissing) as caught:
        fetch.ensure_base(replace(settings, base_model=str(local)), hub)
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
    adapter, base = fetch.sources(Settings())
    assert (base.name, base.revision) == (
        "Qwen/Qwen2.5-14B-Instruct",
        "cf98f3b3bbb457ad9e2bb7baf9a0125b6b88caa8",
    )
    assert (adapter.name, adapter.revision) == ("FJDaz/qwen-spinoza-niveau-b", "main")
    assert fetch.sources(Settings(base_model="Qwen/Qwen3-4B"))[-1].revision == "main"
    assert fetch.sources(Settings(base_revision="v2"))[-1].revision == "v2"


def test_no_adapter_is_no_folder():
    assert fetch.ensure_adapter(Settings(adapter="none")) is None
    assert [source.role for source in fetch.sources(Settings(adapter="none"))] == ["base"]


@pytest.mark.parametrize("name", ["/no/such/folder", "./here", "single", "a/b/c", "a b/c"])
def test_a_name_that_is_neither_folder_nor_repository_is_refused(settings, hub, server, name):
    with pytest.raises(WeightsMissing, match="is no folder"):
        fetch.ensure_base(replace(settings, base_model=name), hub)
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
    folder = next(settings.weights_dir.glob("*@*"))
    assert (done.returncode, done.stdout) == (0, f"base {folder}\n")
    (folder / SHARD).unlink()
    failed = run_script(settings, server, "--verify")
    assert failed.returncode == 1
    assert failed.stderr.splitlines() == [
        f"WEIGHTS_MISSING: {SHARD} is absent. Run scripts/download-weights to fetch these again into {folder}"
    ]
    assert TOKEN not in done.stderr + failed.stderr
