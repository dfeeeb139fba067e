"""Weights are complete, of the right commit and without code before they are used; the hub is on loopback."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from peft import LoraConfig, get_peft_model

from snb.errors import (
    AdapterMismatch,
    AdapterUnsupported,
    BadSetting,
    DownloadFailed,
    SNBError,
    WeightsMissing,
)
from snb.prompt import END, START
from snb.settings import Settings
from snb.weights import fetch
from snb.weights.checkpoint import INDEX, inspect, read_config
from snb.weights.hub import MARGIN, Hub
from snb.weights.lock import NAME, Entry, Lock, alone, digests, verify
from snb.weights.merge import load_merged
from tests import scripts
from tests.hub import Fault, LoopbackHub
from tests.tiny import save_tiny, tiny_model
from tests.waiting import until

pytestmark = pytest.mark.slow  # every test makes a model's files, and most fetch them from a hub on loopback

BASE, ADAPTER = "school/base", "school/adapter"
SHARD = "model-00002-of-00006.safetensors"
LISTING = "/revision/main"
TOKEN = "hf_never_to_be_seen"
PAGE = Fault(headers={"Content-Type": "text/html"}, body=b"<!doctype html>\n<title>Wi-Fi du lycee</title>")


@dataclass
class Site:
    """A folder of weights, the hub that fills it, and what the client under test did."""

    files: dict[str, bytes]
    """Files of the base on the hub."""
    server: LoopbackHub
    settings: Settings
    naps: list[float]
    """The seconds that the client would have slept."""
    hub: Hub

    def base(self, hub: Hub | None = None, **settings: Any) -> Path:
        return fetch.ensure_base(replace(self.settings, **settings), hub or self.hub)

    def adapter(self) -> Path:
        folder = fetch.ensure_adapter(self.settings, self.hub)
        assert folder
        return folder

    def push(self, changes: dict[str, bytes]) -> str:
        return self.server.push(BASE, {**self.files, **changes})

    @property
    def fetched(self) -> list[str]:
        return [request.url.path.rsplit("/")[-1] for request in self.server.asked("GET", ".safetensors")]

    @property
    def locks(self) -> list[Path]:
        return sorted(self.settings.weights_dir.rglob(f"{NAME}*"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def site(tiny: Path, tmp_path: Path) -> Iterator[Site]:
    files = {path.name: path.read_bytes() for path in tiny.iterdir()}
    settings = Settings(base_model=BASE, adapter=ADAPTER, weights_dir=tmp_path / "weights")
    naps = list[float]()
    with LoopbackHub() as server:
        server.push(BASE, files)
        yield Site(files, server, settings, naps, Hub(endpoint=server.url, sleep=naps.append))


@pytest.fixture
def local(tmp_path: Path, site: Site) -> Path:
    return write(tmp_path / "local", site.files)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def read_lock(folder: Path) -> Lock:
    lock = Lock.read(folder)
    assert lock
    return lock


def change(path: Path, **changes: Any) -> bytes:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path.read_bytes()


# The download


def test_a_download_is_whole_holds_only_what_is_wanted_and_is_then_used_without_a_request(site: Site) -> None:
    extra = {"pytorch_model.bin": b"pickle", "model.safetensors.bak": b"", "original/config.json": b"{}"}
    commit = site.push(extra)
    folder = site.base()
    lock = read_lock(folder)
    assert folder.parent == site.settings.weights_dir
    assert (lock.repository, lock.revision, lock.commit) == (BASE, "main", commit)
    assert {n: (e.size, e.sha256) for n, e in lock.files.items()} == {
        name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in site.files.items()
    }
    assert all((folder / name).read_bytes() == content for name, content in site.files.items())
    assert {path.name for path in folder.iterdir()} == {*site.files, NAME, ".cache"}
    site.server.requests.clear()
    assert site.base() == site.base(base_revision=commit) == folder
    assert site.server.requests == []


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry-After": "120"}, 120, 120),
        ({"Retry-After": "3", "RateLimit": '"api";r=0;t=120'}, 120, 120),
        ({"RateLimit": '"api";r=499;t=120'}, 0, 4),
    ],
    ids=["asked", "limit reached", "limit not reached"],
)
def test_a_busy_hub_is_asked_again_after_the_time_it_names(
    site: Site, headers: dict[str, str], least: float, most: float
) -> None:
    site.server.fail("GET", LISTING, Fault(503), Fault(429, headers), Fault(reset=True))
    site.server.fail("GET", SHARD, Fault(500))
    site.base()
    assert len(site.naps) == 4
    assert 0 < site.naps[0] <= 2
    assert least <= site.naps[1] <= most


def test_a_hub_that_is_down_or_gone_is_given_up_after_five_attempts_with_growing_pauses(site: Site) -> None:
    site.server.fail("GET", LISTING, *[Fault(503)] * 9)
    with pytest.raises(DownloadFailed, match="answered 503"):
        site.base()
    assert len(site.server.requests) == 5
    one, two, three, four = site.naps
    assert 1 <= one <= 2 <= two <= 4 <= three <= 8 <= four <= 16
    with LoopbackHub() as gone:
        url = gone.url
    with pytest.raises(DownloadFailed, match="Connection refused"):
        site.base(Hub(endpoint=url, sleep=site.naps.append))
    assert len(site.naps) == 4 + 4


@pytest.mark.parametrize(
    ("name", "fault", "words"),
    [
        (SHARD, Fault(altered=True), f"{SHARD} is not what the hub declares"),
        ("config.json", Fault(altered=True), r"config\.json is not what the hub declares"),
        (SHARD, PAGE, "another size than was declared"),
    ],
)
def test_bytes_that_are_not_what_the_hub_declares_are_fetched_again_then_refused(
    site: Site, name: str, fault: Fault, words: str
) -> None:
    site.server.fail("GET", f"/{name}", *[fault] * 5)
    with pytest.raises(DownloadFailed, match=words):
        site.base()
    assert (len(site.naps), site.locks) == (4, [])
    assert (site.base() / name).read_bytes() == site.files[name]


def test_only_the_missing_bytes_and_the_margin_need_room_and_without_it_nothing_is_fetched(
    site: Site,
) -> None:
    with pytest.raises(DownloadFailed, match=rf"{MARGIN:,} do not fit the 123,456 free"):
        site.base(replace(site.hub, free_bytes=lambda _: 123_456))
    assert site.server.asked("HEAD") == []
    folder = site.base()
    (folder / SHARD).unlink()
    needed = len(site.files[SHARD])
    with pytest.raises(DownloadFailed, match=f"{needed:,} bytes"):
        site.base(replace(site.hub, free_bytes=lambda _: needed + MARGIN - 1))
    site.base(replace(site.hub, free_bytes=lambda _: needed + MARGIN))


def test_a_fault_of_the_disk_is_told_and_not_tried_again(site: Site) -> None:
    site.settings.weights_dir.write_text("a file where the folder should be")
    with pytest.raises(DownloadFailed, match="cannot be written: File exists"):
        site.base()
    assert site.naps == []


# Refusals of the hub, and servers that are not a hub


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_closed_repository_names_hf_token_and_never_its_value(
    site: Site, caplog: pytest.LogCaptureFixture, token: str | None
) -> None:
    caplog.set_level(logging.DEBUG)
    site.server.token = "another"
    keyed = replace(site.hub, token=token)
    with pytest.raises(DownloadFailed, match=r"answered 401.*HF_TOKEN (is not set|has no)") as caught:
        site.base(keyed)
    assert ("is not set" in str(caught.value)) == (token is None)
    assert TOKEN not in f"{caught.getrepr(chain=True, showlocals=False)} {caplog.text} {keyed}"
    assert (len(site.server.requests), site.naps) == (1, [])


def test_a_token_that_no_request_can_carry_is_refused_unquoted(site: Site) -> None:
    for token in ("hf_a\nb", "hf_é", "hf_a b"):
        with pytest.raises(BadSetting, match="HF_TOKEN") as caught:
            fetch.ensure_base(replace(site.settings, hf_token=token))
        assert token not in str(caught.value)


LISTED = b'{"id": "a/b", "sha": %s, "siblings": [%s]}'
REFUSALS = [
    ("GET", LISTING, [Fault(403, {"X-Error-Code": "GatedRepo"})], "answered 403"),
    (
        "GET",
        LISTING,
        [Fault(404, {"X-Error-Code": "RevisionNotFound"})],
        "main: .* 404.*SNB_PREPARED_REVISION",
    ),
    ("HEAD", "/config.json", [Fault(403)] * 2, "answered 403"),  # wrapped in an error of the library
    ("HEAD", SHARD, [PAGE], r"lacks the headers of a hub.*login page"),
    (
        "GET",
        LISTING,
        [Fault(302, {"Location": "/login"})],
        r"list a repository: '<!doctype html>.*HF_ENDPOINT",
    ),
    *(
        ("GET", LISTING, [Fault(body=body)], "what answered")
        for body in (
            *(b"null", b'{"error": "who are you?"}', b"\xff\xfe\x00"),
            *(LISTED % (b"null", b""), LISTED % (b'"../../x"', b""), LISTED % (b'"%s"' % (b"0" * 40), b"{}")),
        )
    ),
]


@pytest.mark.parametrize(("method", "where", "answers", "message"), REFUSALS)
def test_a_refusal_or_an_answer_of_something_else_is_told_in_one_line_and_not_asked_again(
    site: Site, method: str, where: str, answers: list[Fault], message: str
) -> None:
    site.server.fail(method, where, *answers)
    site.server.fail("GET", "/login", PAGE)
    with pytest.raises(DownloadFailed, match=message) as caught:
        site.base()
    assert "\n" not in str(caught.value)
    assert (site.naps, site.locks) == ([], [])


def test_a_mirror_that_lists_no_sizes_or_no_hashes_is_refused_at_once(site: Site) -> None:
    for site.server.unlisted in ({"size"}, {"blobId", "lfs"}, {"size", "blobId", "lfs"}):
        site.server.requests.clear()
        with pytest.raises(DownloadFailed, match=r"without size or hash.*partial mirror"):
            site.base()
        assert (len(site.server.requests), site.naps) == (1, [])


# Two at once


def test_of_two_that_want_one_repository_the_second_waits_and_only_verifies(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.server.fail("GET", SHARD, Fault(503))
    with ThreadPoolExecutor() as pool:
        second: list[Future[Path]] = []

        def meanwhile(_: float) -> None:
            second.append(pool.submit(site.base, Hub(endpoint=site.server.url)))
            until(lambda: "waiting for it" in caplog.text)

        first = site.base(replace(site.hub, sleep=meanwhile))
        assert second[0].result() == first
    assert len(site.server.asked("GET", LISTING)) == 1
    assert len(site.fetched) == len({*site.fetched}) + 1  # the one that failed first


def test_what_is_verified_is_read_while_another_fills(site: Site) -> None:
    folder = site.base()
    [lock] = site.settings.weights_dir.glob("*.lock")
    with ThreadPoolExecutor() as pool, alone(lock):
        assert pool.submit(site.base).result(timeout=60) == folder


# Revisions and locks


def test_a_new_commit_is_fetched_where_it_is_asked_for_and_never_mixed_into_the_old_one(site: Site) -> None:
    old = site.base()
    commit = site.push({"generation_config.json": b'{"top_k": 1}'})
    site.server.requests.clear()
    assert site.base() == old, "a branch that has moved on"
    assert site.server.requests == []
    (old / "generation_config.json").unlink()
    assert site.base() == old
    assert (old / "generation_config.json").read_bytes() == site.files["generation_config.json"]
    new = site.base(base_revision=commit)
    assert new != old
    assert (new / "generation_config.json").read_bytes() == b'{"top_k": 1}'


ENTRY = {"size": 1, "sha256": "0" * 64}
WRONG_ENTRIES = [("size", "1"), ("size", -1), ("size", True), ("sha256", "0"), ("sha256", None), ("time", 1)]


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", '{"files": {"a": 1}}', "[" * 100_000, '{"a":' * 100_000),
        *({"files": {}}, {"commit": 1}, {"files": {"../config.json": ENTRY}}, {"files": {"a/b": ENTRY}}),
        *({"files": {"w": {**ENTRY, name: value}}} for name, value in WRONG_ENTRIES),
        *({field: "other", "commit": "other"} for field in ("repository", "revision")),
    ],
    ids=lambda text: str(text)[:60],
)
def test_a_damaged_lock_or_one_of_something_else_is_no_lock(site: Site, text: str | dict[str, Any]) -> None:
    folder = site.base()
    if isinstance(text, dict):
        change(folder / NAME, **text)
    else:
        (folder / NAME).write_text(text)
        with pytest.raises(WeightsMissing, match="no readable"):
            verify(folder)
    with pytest.raises(WeightsMissing, match="is not in"):
        fetch.check(fetch.sources(site.settings)[-1], site.settings)
    verify(site.base())


def test_truncated_altered_and_missing_files_are_in_one_error_and_only_they_are_fetched_again(
    site: Site,
) -> None:
    folder = site.base()
    touched = (folder / SHARD).stat().st_mtime
    (folder / SHARD).write_bytes(site.files[SHARD][:-1])
    os.utime(folder / SHARD, (touched, touched))  # so that the library trusts it
    (folder / "tokenizer.json").unlink()
    (folder / "config.json").write_bytes(site.files["config.json"][:-1] + b" ")
    with pytest.raises(WeightsMissing, match="scripts/download-weights") as caught:
        verify(folder)
    size = len(site.files[SHARD])
    assert sorted(caught.value.faults) == [
        "config.json was altered: its sha256 is not the recorded one",
        f"{SHARD} has {size - 1} bytes, not {size}",
        "tokenizer.json is absent",
    ]
    site.server.requests.clear()
    verify(site.base())
    assert site.fetched == [SHARD]


def test_offline_nothing_is_asked_and_the_faults_are_told(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = site.base()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    site.server.requests.clear()
    assert site.base() == folder
    (folder / "config.json").unlink()
    with pytest.raises(WeightsMissing, match=r"config\.json is absent"):
        site.base()
    with pytest.raises(WeightsMissing, match=r"school/adapter at main is not in .* without it") as refused:
        site.adapter()
    assert "HF_HUB_OFFLINE" in refused.value.cure
    assert site.server.requests == []


# What is refused by its content


Changes = dict[str, dict[str, Any] | tuple[str, str] | bytes | None]
OUTSIDE = "../../bystander"
SLIDING = {"use_sliding_window": True, "sliding_window": 128, "max_window_layers": 1, "layer_types": None}
UNSERVED: list[tuple[dict[str, Any], str]] = [  # config.json
    ({"architectures": ["Qwen3ForCausalLM"]}, "Qwen3ForCausalLM, not Qwen2"),
    ({"architectures": None}, "architectures in config.json is none"),
    (SLIDING, "sliding_attention, not full_attention: without use_sliding_window"),
    (
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
        "rope_type in config.json is dynamic, not default or linear",
    ),
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq, not none: name"),
    ({"hidden_act": "zigzag"}, "describes no Qwen2 model: KeyError 'zigzag'"),
    ({"vocab_size": 390}, "tokenizer.json has 391 ids, and vocab_size in config.json is 390"),
    ({"auto_map": {"AutoModel": "x.Y"}}, "config.json wants code"),
    ({"num_hidden_layers": 10**8, "layer_types": None}, "num_hidden_layers is 100000000, more"),
    ({"dtype": True}, "describes no Qwen2 model: TypeError dtype is True"),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "factor": "4"}}, "describes no Qwen2"),
]
REFUSED: list[tuple[Changes, str]] = [
    ({"tokenizer_config.json": {"auto_map": {"AutoModel": "x.Y"}}}, "tokenizer_config.json wants code"),
    ({"tokenizer.json": (START, "<｜User｜>")}, "has no token <.im_start.>,"),
    ({"tokenizer.json": (END, "<｜User｜>")}, "has no token <.im_end.>,"),
    ({"tokenizer.json": b"{}"}, r"tokenizer\.json is not a tokenizer"),
    ({SHARD: None}, f"{SHARD}, which holds weights, is absent"),
    ({INDEX: {"weight_map": {"w": OUTSIDE}}, OUTSIDE: b""}, "names no shards, or something else"),
    ({INDEX: {"weight_map": {"w": "pytorch_model.bin"}}}, "names no shards"),
    ({"generation_config.json": {"eos_token_id": {}}}, "generation_config.json"),
    ({INDEX: b"{}"}, INDEX),
    ({INDEX: b'{"weight_map": {}}'}, INDEX),
    ({INDEX: b'{"weight_map": {"w": 1}}'}, INDEX),
    ({INDEX: None, "pytorch_model.bin": b""}, "pytorch_model.bin: pickles can run code and are refused"),
]
REFUSED += [({"config.json": fields}, words) for fields, words in UNSERVED]


def changed(files: dict[str, bytes], changes: Changes) -> dict[str, bytes]:
    """Files with JSON fields set (dict), text replaced (tuple), new content (bytes), or removed (None)."""
    files = dict(files)
    for name, to in changes.items():
        content = files.pop(name, b"{}")
        if isinstance(to, dict):
            files[name] = json.dumps({**json.loads(content), **to}).encode()
        elif isinstance(to, tuple):
            files[name] = content.replace(to[0].encode(), to[1].encode())
        elif to is not None:
            files[name] = to
    return files


@pytest.mark.parametrize(("changes", "words"), REFUSED, ids=str)
def test_a_base_that_cannot_be_served_is_refused_before_a_shard_is_fetched_and_as_a_local_folder(
    site: Site, tmp_path: Path, changes: Changes, words: str
) -> None:
    (tmp_path / "bystander").write_text("untouched")
    files = changed(site.files, changes)
    if "pytorch_model.bin" in files:
        files = {name: content for name, content in files.items() if not name.endswith(".safetensors")}
    site.server.push(BASE, files)
    with pytest.raises(WeightsMissing, match=words):
        site.base()
    assert (site.fetched, site.locks, site.server.asked("GET", ".bin")) == ([], [], [])
    assert (tmp_path / "bystander").read_text() == "untouched"
    with pytest.raises(WeightsMissing, match=words):
        inspect(write(tmp_path / "local", {n: c for n, c in files.items() if "/" not in n}), "base")


YARN: dict[str, Any] = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}


@pytest.mark.parametrize(
    ("changes", "positions"),
    [
        ({"quantization_config": None}, 1024),
        ({"use_sliding_window": False, "sliding_window": 131072, "layer_types": None}, 1024),  # as Qwen2.5 is
        ({"use_sliding_window": True, "max_window_layers": 2, "layer_types": None}, 1024),  # in no layer
        ({"rope_parameters": None, "rope_scaling": YARN}, 4096),  # as Qwen's card says
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}, 4096),
    ],
    ids=str,
)
def test_what_the_engine_serves_passes_with_a_warning_if_the_context_is_longer_than_the_model_s(
    local: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], positions: int
) -> None:
    change(local / "config.json", **changes)
    inspect(local, "base")
    read_config(local, positions)
    assert "SNB_CONTEXT" not in caplog.text
    read_config(local, positions + 1)
    assert f"SNB_CONTEXT is {positions + 1}, and the model knows {positions} positions" in caplog.text


def test_what_was_downloaded_when_it_was_not_judged_is_refused_too(site: Site) -> None:
    folder = site.base()
    change(folder / "config.json", architectures=["Qwen3ForCausalLM"])
    entry = Entry((folder / "config.json").stat().st_size, digests([folder / "config.json"])[0])
    lock = read_lock(folder)
    replace(lock, files={**lock.files, "config.json": entry}).write(folder)
    with pytest.raises(WeightsMissing, match="Qwen3ForCausalLM"):
        fetch.check(fetch.sources(site.settings)[-1], site.settings)


@pytest.mark.parametrize(
    ("config", "weights", "error", "words"),
    [
        (b'{"peft_type": "LOHA"}', "adapter_model.safetensors", AdapterUnsupported, "peft_type is 'LOHA'"),
        (b"{}", "adapter_model.bin", WeightsMissing, r"adapter_model\.bin: pickles can run code"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_refused_before_its_weights_are_fetched(
    site: Site, config: bytes, weights: str, error: type[SNBError], words: str
) -> None:
    site.server.push(ADAPTER, {"adapter_config.json": config, weights: b""})
    with pytest.raises(error, match=words):
        site.adapter()
    assert site.server.asked("GET", weights) == []


def test_an_adapter_of_another_base_is_refused_before_the_base_is_fetched(site: Site, tmp_path: Path) -> None:
    lora = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(tiny_model(hidden_size=32), lora).save_pretrained(tmp_path / "adapter")
    with pytest.raises(AdapterMismatch, match=r"has shape \(4, 32\)"):
        site.base(adapter=str(tmp_path / "adapter"))
    assert site.fetched == []


def test_a_hub_file_that_is_whole_but_no_safetensors_gets_no_lock(site: Site) -> None:
    site.push({SHARD: b"not tensors"})
    with pytest.raises(WeightsMissing, match=SHARD):
        site.base()
    assert site.locks == []


# Local folders


def test_a_whole_local_folder_is_used_as_it_is_and_every_fault_of_one_is_in_one_error(
    site: Site, local: Path
) -> None:
    assert site.base(base_model=str(local)) == local
    assert site.server.requests == []
    assert not (local / NAME).exists()
    (local / SHARD).write_bytes(site.files[SHARD][:-1])
    with pytest.raises(WeightsMissing) as caught:
        site.base(base_model=str(local))
    [fault, *absent] = caught.value.faults
    assert fault.startswith(f"{SHARD} is truncated or damaged: ")
    assert all(fault.endswith(" is absent") for fault in absent)
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


def test_a_whole_file_needs_no_index_and_a_vocabulary_may_be_longer_than_the_tokenizer_s(local: Path) -> None:
    for path in local.glob("model*"):
        path.unlink()
    tiny_model(vocab_size=512).save_pretrained(local)
    inspect(local, "base")


def test_a_model_that_the_tensors_are_not_of_is_refused_before_it_takes_memory(local: Path) -> None:
    change(local / "config.json", vocab_size=10**7, num_hidden_layers=200, layer_types=None)
    with pytest.raises(WeightsMissing) as caught:
        inspect(local, "base")
    shape = "has shape (391, 64), and config.json says (10000000, 64)"
    assert f"model.embed_tokens.weight {shape}" in caught.value.faults
    assert "model.layers.199.mlp.up_proj.weight is absent" in caught.value.faults


DOCUMENTS = [
    *(b"[" * 100_000, b"\xef\xbb\xbf{}", b'{"a": "\xff"}', b'{"a": 1, "a": 2}', b'{"a": NaN}'),
    *(b'{"a": 1e999}', b'{"a": %s}' % (b"9" * 5000), b"{" + b" " * (1 << 25) + b"}"),
]


@pytest.mark.parametrize("content", DOCUMENTS, ids=lambda content: str(content)[:40])
def test_json_that_is_too_deep_too_large_or_read_in_two_ways_is_refused_in_every_file(
    local: Path, content: bytes
) -> None:
    names = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", INDEX]
    for name in names:
        (local / name).write_bytes(content)
    with pytest.raises(WeightsMissing) as caught:
        inspect(local, "base")
    assert {f"{name} is not a readable JSON object" for name in names} <= {*caught.value.faults}


# Beside the lock


def test_what_lies_beside_the_shards_is_not_loaded(local: Path, tmp_path: Path) -> None:
    expected = load_merged(local, None).state_dict()
    lora = LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    for other in (tiny_model(seed=5), get_peft_model(tiny_model(seed=5), lora)):
        other.save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "config.json").unlink()
    shutil.copytree(tmp_path / "other", local, dirs_exist_ok=True)
    change(
        local / "config.json",
        transformers_weights="model.safetensors",
        model_type=[],
        num_labels=10**9,
        fusion_config={"a": 1},
    )
    inspect(local, "base")
    loaded = load_merged(local, None).state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in loaded.items())


@pytest.mark.parametrize("name", ["model.safetensors", "Model.SafeTensors", "adapter_config.json"])
def test_what_lies_beside_a_lock_is_refused_by_name_until_it_is_gone(site: Site, name: str) -> None:
    folder = site.base()
    (folder / name).write_bytes(site.files[SHARD])
    for base in (BASE, str(folder)):
        with pytest.raises(WeightsMissing, match=f"{name} is beside what {NAME} lists"):
            site.base(base_model=base)
    (folder / name).unlink()
    assert site.base() == folder


# Sources, and the script


def test_the_pin_gives_its_revision_to_its_own_repository_only() -> None:
    adapter, base = fetch.sources(Settings())
    pinned = "Qwen/Qwen2.5-14B-Instruct", "cf98f3b3bbb457ad9e2bb7baf9a0125b6b88caa8"
    assert (base.name, base.revision) == pinned
    assert (adapter.name, adapter.revision) == ("FJDaz/qwen-spinoza-niveau-b", "main")
    assert fetch.sources(Settings(base_model="Qwen/Qwen3-4B"))[-1].revision == "main"
    given = fetch.sources(Settings(base_revision="v2", adapter_revision="v3"))
    assert [source.revision for source in given] == ["v3", "v2"]
    assert fetch.ensure_adapter(Settings(adapter="none")) is None
    assert [source.role for source in fetch.sources(Settings(adapter="none"))] == ["base"]


def test_a_name_that_is_neither_folder_nor_repository_is_refused(site: Site) -> None:
    for name in ("/no/such/folder", "./here", "single", "a/b/c", "a b/c"):
        with pytest.raises(WeightsMissing, match="is neither a folder"):
            site.base(base_model=name)
    assert site.server.requests == []


def test_the_script_downloads_with_the_token_and_only_verifies_where_that_is_asked(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.server.token = TOKEN
    monkeypatch.setattr(fetch, "Hub", partial(Hub, endpoint=site.server.url))
    settings = {"SNB_BASE_MODEL": BASE, "SNB_ADAPTER": "none", "HF_TOKEN": TOKEN}
    for name, value in {**settings, "SNB_WEIGHTS_DIR": str(site.settings.weights_dir)}.items():
        monkeypatch.setenv(name, value)
    assert scripts.code("download-weights") == 0
    done = capsys.readouterr()
    [folder] = site.settings.weights_dir.glob("*@*")
    assert done.out == f"base {folder}\n"
    (folder / SHARD).unlink()
    with pytest.raises(WeightsMissing, match=f"{SHARD} is absent"):
        scripts.code("download-weights", "--verify")
    assert TOKEN not in done.err + capsys.readouterr().err
