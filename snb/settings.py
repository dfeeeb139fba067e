"""Environment variables, read in this one place into one typed object."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from snb.errors import BadSetting

PRECISIONS = ("auto", "bf16", "fp16", "fp32", "fp8", "int8", "nf4")
DEVICES = ("auto", "cuda", "cpu")
PATHS = ("auto", "fused", "graphs", "packed", "shared", "eager")
OF_OTHERS = (
    *("SNB_BACKEND_URL", "SNB_API_PREFIX", "SNB_TIMEOUT_MS", "SNB_HANDLE_SECRET", "SNB_OPENAI_TOKEN"),
    *("SNB_HOST", "SNB_UPSTREAM", "SNB_IMAGE", "SNB_USER", "SNB_STANDIN"),
)
"""Variables that the JavaScript client, the files of deploy/ and scripts/make-standin read."""
LINK = re.compile(r"SNB_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
"""Variables that Kubernetes sets in every pod for a Service called snb or snb-…, besides SNB_PORT=tcp://…:
https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables"""
ROOT = Path(__file__).resolve().parent.parent
SHORTEST_KEY = 16
SHORTEST_CONTEXT = 1536
"""Tokens that hold a persona, a short question and an answer of the default length."""


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return text

    return parse


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("not empty")
    return text.strip()


def _key(text: str) -> str:
    if not re.fullmatch(rf"[!-~]{{{SHORTEST_KEY},}}", text.strip()):
        raise ValueError(f"at least {SHORTEST_KEY} ASCII characters, none of them a space")
    return text.strip()


def _setting(default: Any, env: str, parse: Callable[[str], Any], secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"env": env, "parse": parse})


@dataclass(frozen=True)
class Settings:
    """What the operator of an endpoint chooses. Only `Settings.from_environment()` reads the environment."""

    base_model: str = _setting("Qwen/Qwen2.5-14B-Instruct", "SNB_BASE_MODEL", _text)
    """A hub repository or a folder."""
    base_revision: str | None = _setting(None, "SNB_BASE_REVISION", _text)
    """A branch, tag or commit; None: the one in weights/pins.json."""
    adapter: str = _setting("FJDaz/qwen-spinoza-niveau-b", "SNB_ADAPTER", _text)
    """A hub repository, a folder, or `none` for the base model alone."""
    adapter_revision: str | None = _setting(None, "SNB_ADAPTER_REVISION", _text)
    """A branch, tag or commit; None: the one in weights/pins.json."""
    prepared: str = _setting("auto", "SNB_PREPARED", _text)
    """Weights that scripts/prepare-weights made of base and adapter: a folder, a hub repository, or `none`;
    `auto` takes the folder `prepared` in `weights_dir`, else in the image's own weights, if there is one."""
    prepared_revision: str | None = _setting(None, "SNB_PREPARED_REVISION", _text)
    """A branch, tag or commit of that repository; None: `main`."""
    precision: str = _setting("auto", "SNB_PRECISION", _choice(*PRECISIONS))
    """What the weights are held in; `auto` takes the best that fits the GPU."""
    device: str = _setting("auto", "SNB_DEVICE", _choice(*DEVICES))
    """`auto` takes the GPU; a large model runs on a CPU only with `cpu`."""
    weights_dir: Path = _setting(ROOT / "weights", "SNB_WEIGHTS_DIR", lambda text: Path(_text(text)))
    """Where downloaded and prepared weights are kept."""
    path: str = _setting("auto", "SNB_PATH", _choice(*PATHS))
    """How the model is run; `auto` takes the first that passes the self-test, and never `fused`."""
    slots: int = _setting(32, "SNB_SLOTS", _whole(1, 256))
    """Requests decoded at once; the others wait their turn."""
    context: int = _setting(4096, "SNB_CONTEXT", _whole(SHORTEST_CONTEXT, 32768))
    """Tokens of one request, prompt and answer together."""
    deadline: int = _setting(300, "SNB_DEADLINE", _whole(1, 1800))
    """Seconds from arrival after which an answer ends with what there is; a request may set fewer."""
    piece_ms: int = _setting(40, "SNB_PIECE_MS", _whole(0, 1000))
    """Milliseconds between two pieces of a streamed answer; 0 sends each token's text at once, except that a
    long answer still joins a few (`snb.service.joined`)."""
    scripts: str = _setting("french", "SNB_SCRIPTS", _choice("french", "any"))
    """`french` keeps scripts that French is not written in out of answers; `any` lets them in."""
    api_key: str | None = _setting(None, "SNB_API_KEY", _key, secret=True)
    """What callers of `snb.front` have to send in the header `Authorization: Bearer …`. Never logged."""
    hf_token: str | None = _setting(None, "HF_TOKEN", _text, secret=True)
    """Reads a private adapter; never logged."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Reads every setting and reports every fault at once.

        Raises:
            BadSetting: an `SNB_…` name that does not exist, or a value that is not allowed.
        """
        known = {f.metadata["env"]: f for f in fields(cls)}
        faults = [
            f"{name} is not a setting"
            for name in sorted(environ)
            if name.startswith("SNB_") and name not in known and not _of_others(name, environ[name])
        ]
        values = {}
        for env, setting in known.items():
            if not environ.get(env):
                continue
            try:
                values[setting.name] = setting.metadata["parse"](environ[env])
            except ValueError as error:
                shown = "its value" if not setting.repr else repr(environ[env])
                faults.append(f"{env} must be {error}, not {shown}")
        if faults:
            raise BadSetting(faults, f"Settings: {', '.join(known)}")
        return cls(**values)


def _of_others(name: str, value: str) -> bool:
    link = LINK.fullmatch(name) or (name.endswith("_PORT") and "://" in value)
    return name in OF_OTHERS or bool(link)
