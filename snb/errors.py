"""Errors that a person can act on: a stable code, what was wrong, what is allowed, what to try."""

from collections.abc import Sequence


class SNBError(Exception):
    """Base of every error that this package raises on purpose.

    `str(error)` is `CODE: fault; fault. What to do`, and never holds a prompt, a token or a secret.

    Args:
        faults: what was wrong, one sentence for each fault; a single one may come as a plain string.
        cure: what is allowed or what to try, in one sentence.
    """

    code = "SNB_ERROR"

    def __init__(self, faults: str | Sequence[str], cure: str = "") -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        self.cure = cure
        super().__init__(f"{self.code}: {'; '.join(self.faults)}{f'. {cure}' if cure else ''}")


class BadInput(SNBError):
    """A caller's input is outside what the endpoint accepts."""

    code = "BAD_INPUT"


class PromptTooLong(BadInput):
    """The persona and the message alone do not fit in the context."""

    code = "PROMPT_TOO_LONG"


class BadSetting(SNBError):
    """An environment variable is unknown or has a value that is not allowed."""

    code = "BAD_SETTING"


class WeightsMissing(SNBError):
    """Weight files are absent, truncated, altered or unusable."""

    code = "WEIGHTS_MISSING"


class PreparedMismatch(SNBError):
    """Prepared weights are of another base, adapter or precision than asked for, or in another format."""

    code = "PREPARED_MISMATCH"


class DownloadFailed(SNBError):
    """The hub refused or did not answer, or the disk is too small."""

    code = "DOWNLOAD_FAILED"


class DiskFull(SNBError):
    """The data to be written does not fit on the disk."""

    code = "DISK_FULL"


class AdapterMismatch(SNBError):
    """The adapter does not belong to this base model."""

    code = "ADAPTER_MISMATCH"


class AdapterUnsupported(SNBError):
    """The adapter is of a kind that cannot be merged exactly."""

    code = "ADAPTER_UNSUPPORTED"


class DeviceUnusable(SNBError):
    """There is no device on which this model may run."""

    code = "DEVICE_UNUSABLE"


class OutOfMemory(SNBError):
    """No precision fits the memory of the device."""

    code = "OUT_OF_MEMORY"


class SelfTestFailed(SNBError):
    """The engine has a fault, or its results differ from the reference by more than rounding explains."""

    code = "SELF_TEST_FAILED"


class DeadlinePassed(SNBError):
    """The deadline passed before there was any text."""

    code = "DEADLINE"


class RequestFailed(SNBError):
    """An error in the engine ended this request and no other."""

    code = "REQUEST_FAILED"


class EngineDown(SNBError):
    """The decode loop has died, is stuck or was closed; the process must be restarted."""

    code = "ENGINE_DOWN"


class EngineStuck(EngineDown):
    """The device does not return from a step, so no other engine can use it."""
