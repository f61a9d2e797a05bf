"""Ctrl-C and SIGTERM as the run wants them: not in Lightning's way, and never lost."""

import signal
import threading
from typing import Any

import lightning as L

from src.runs.session import Terminated

EXCEPTIONS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


class StopSignals(L.Callback):
    """Passes both signals on to the handlers that were there when the callback was made, and remembers them.

    Lightning's own handler of SIGTERM broadcasts to the other ranks from within, and hangs when they wait for this one
    in another collective. And where a handler raises while Python ends an object, Python drops the exception: what was
    asked for and goes on nevertheless is stopped before the next batch.
    """

    def __init__(self) -> None:
        self.handlers = {signum: signal.getsignal(signum) for signum in EXCEPTIONS}
        self.received: int | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._listen()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._listen()  # Lightning puts its own in between

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._listen()

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self._stop_if_asked()

    def on_validation_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self._stop_if_asked()

    def on_test_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self._stop_if_asked()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, KeyboardInterrupt):  # else the process ends, and isn't to be disturbed
            self._set(self.handlers)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._set(self.handlers)

    def _listen(self) -> None:
        self._set(dict.fromkeys(EXCEPTIONS, self._note))

    def _set(self, handlers: dict[Any, Any]) -> None:
        if threading.current_thread() is threading.main_thread():  # only it may
            for signum, handler in handlers.items():
                signal.signal(signum, signal.SIG_DFL if handler is None else handler)

    def _note(self, signum: int, frame: Any) -> None:
        self.received = signum
        handler = self.handlers[signal.Signals(signum)]
        if callable(handler):
            handler(signum, frame)

    def _stop_if_asked(self) -> None:
        if self.received is not None:
            raise EXCEPTIONS[signal.Signals(self.received)](signal.Signals(self.received).name)
