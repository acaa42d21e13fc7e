"""How the library is called: errors become exceptions, exceptions of callbacks come out of the call
that ran them, and an interrupt of the main thread cancels what runs."""

import contextvars
import ctypes
import threading
from typing import Any, Callable, Optional, TypeVar

from . import errors
from .handle import Handle
from .library import lib

T = TypeVar("T")
_thread = threading.local()  # .error: what a callback has raised during the running call

# A signal that another thread has received wakes nobody: every so many seconds the main one looks.
PATIENCE = 0.2


def _plain(argument: Any) -> Any:
    return argument._reference if isinstance(argument, Handle) else argument


def call(context: Any, function: Any, *arguments: Any) -> None:
    """Calls a function that returns a status; handles are given as objects."""
    outer = getattr(_thread, "error", None)
    _thread.error = None
    try:
        try:
            # In no variable: a traceback would keep the references of what is closed meanwhile.
            status = function(*[_plain(argument) for argument in arguments])
        except ctypes.ArgumentError as error:
            raise TypeError(f"{function.__name__}: {error}") from None
        raised = _thread.error
        if raised is not None:
            raise raised
        if status != errors.OK:
            raise errors.error_of(status, context._message())
    finally:
        _thread.error = outer


def remember(error: BaseException) -> None:
    """Called in a callback that fails: the call that runs it will raise this."""
    if getattr(_thread, "error", None) is None:
        _thread.error = error


def create(context: Any, function: Any, *arguments: Any) -> int:
    """`call` of a function with `out` behind the first argument; returns the new handle."""
    out = ctypes.c_void_p()
    call(context, function, arguments[0], ctypes.byref(out), *arguments[1:])
    return out.value or 0


class _Work:
    """A function on a thread of its own."""

    def __init__(self, function: Callable[[], Any]):
        self.function = function
        self.context = contextvars.copy_context()
        self.claim = (
            threading.Lock()
        )  # of who decides that the function runs, or that it never will
        self.done = threading.Event()
        self.result: Any = None
        self.error: Optional[BaseException] = None
        self.thread = threading.Thread(target=self._run, name="eqat", daemon=True)

    def _run(self) -> None:
        if not self.claim.acquire(blocking=False):
            return
        try:
            self.result = self.context.run(self.function)
        except BaseException as error:
            self.error = error
        finally:
            self.done.set()

    def wait(self) -> None:
        while not self.done.wait(PATIENCE):
            pass


def _give_up(context: Any, work: _Work) -> None:
    """However often the user interrupts: the memory of a running call must stay."""
    if work.claim.acquire(blocking=False):
        return
    while True:
        try:
            lib.eqat_context_cancel(context._address)
            work.wait()
            lib.eqat_context_reset_cancel(context._address)
            return
        except BaseException:
            continue


def interruptible(context: Any, function: Callable[[], T]) -> T:
    """function(), which calls the library once.  Python runs signal handlers on the main thread
    alone and not inside of C: there the call gets a thread of its own, and when a handler raises
    meanwhile (KeyboardInterrupt), it is cancelled, awaited, and the exception goes on."""
    if threading.current_thread() is not threading.main_thread():
        return function()
    work = _Work(function)
    try:
        work.thread.start()
        work.wait()
    except BaseException:
        _give_up(context, work)
        raise
    error, work.error = work.error, None
    if error is not None:
        raise error
    return work.result


def call_long(context: Any, function: Any, *arguments: Any) -> None:
    interruptible(context, lambda: call(context, function, *arguments))
