"""The context: device, threads, memory, log and seed."""

import ctypes
import logging
import weakref
from typing import Any, Optional

from . import errors, memory, options, prototypes
from .calls import remember
from .handle import Handle, references
from .library import lib

LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)  # of eqat_log_level
OPTIONS = options.Group("context", without=["log_level"])


def _own_level(logger: logging.Logger) -> str:
    """The least severe eqat_log_level that the logger lets through."""
    enabled = [i for i, level in enumerate(LEVELS) if logger.isEnabledFor(level)]
    return str(max(enabled, default=0))


def _log(number: Optional[int], level: int, line: bytes) -> None:
    try:
        memory.held(number).log(LEVELS[level], "%s", line.decode("utf-8", "replace"))
    except BaseException as error:
        remember(error)


_LOG = prototypes.log_fn(_log)


class Context(Handle):
    """Owns a device, a pool of threads, memory, a log and a seed; everything else is made in one.

    What the library says goes to `logger` (default: `logging.getLogger("eqat")`), whose level when
    the context is made decides how much.  A context and all that is made from it is used by one
    thread at a time; two contexts work on two threads at the same time.  Any thread may call
    `cancel`.

    `stream` is the address of a CUDA stream, such as `torch.cuda.current_stream().cuda_stream`,
    which must outlive the context; 0 or None: one of the context's own (torch's default stream is
    0 there and 1 here)."""

    _kind = "context"

    @options.options(OPTIONS)
    def __init__(self, *, logger: Optional[logging.Logger] = None, **keywords: Any):
        logger = logger or logging.getLogger("eqat")
        log = memory.Hold(logger)
        values = {**OPTIONS.take(keywords), "log_level": _own_level(logger)}
        struct = options.fill(None, "context", values).struct
        struct.log, struct.log_user = ctypes.cast(_LOG, ctypes.c_void_p), log.number
        out, line = ctypes.c_void_p(), ctypes.create_string_buffer(1024)
        status = lib.eqat_context_create(ctypes.byref(out), ctypes.byref(struct), line, len(line))
        if status != errors.OK:
            raise errors.error_of(status, line.value.decode("utf-8", "replace"))
        self.device: str = struct.device.decode()
        # Without a reference of its own: for who is alive, and so is the context then.
        self._address = references["context"](out.value)
        self._owned = references["context"].own(out.value, log)
        # What is made from the context keeps the reference, and the log with it, not the object.
        self._anchor = weakref.ref(self._owned)

    @property
    def context(self) -> "Context":  # type: ignore[override]
        return self

    def _message(self) -> str:
        return lib.eqat_context_error(self._address).decode("utf-8", "replace")

    @property
    def threads(self) -> int:
        """Threads in the pool."""
        return lib.eqat_context_threads(self._reference)

    @property
    def bytes(self) -> int:
        """What the context's allocator has given out."""
        return lib.eqat_context_bytes(self._reference)

    @property
    def bytes_peak(self) -> int:
        """At most since creation or the last `reset_peak`."""
        return lib.eqat_context_bytes_peak(self._reference)

    @property
    def device_bytes(self) -> int:
        """What the context holds of its device's memory; `bytes` where that is the host's."""
        return lib.eqat_context_device_bytes(self._reference)

    @property
    def device_bytes_peak(self) -> int:
        """At most since creation or the last `reset_peak`."""
        return lib.eqat_context_device_bytes_peak(self._reference)

    @property
    def device_bytes_left(self) -> Optional[int]:
        """What the device has left for the context; None where its memory is the host's."""
        free = lib.eqat_context_device_bytes_left(self._reference)
        return None if free == ctypes.c_size_t(-1).value else free

    def reset_peak(self) -> None:
        lib.eqat_context_reset_peak(self._reference)

    def trim(self) -> None:
        """Gives cached tensor memory back to the allocator."""
        lib.eqat_context_trim(self._reference)

    def cancel(self) -> None:
        """Asks the running long call (or the next, if none runs) to stop: it raises Cancelled and
        leaves everything consistent.  Any thread."""
        lib.eqat_context_cancel(self._reference)

    def reset_cancel(self) -> None:
        """Takes back a request that no call has answered yet."""
        lib.eqat_context_reset_cancel(self._reference)
