"""SIGTERM as the run wants it, not as Lightning does."""

import signal
import threading

import lightning as L


class KeepSigterm(L.Callback):
    """Puts back the handler of SIGTERM that was there when the callback was made.

    Lightning's own broadcasts to the other ranks from within the handler, and hangs when they wait for this one in
    another collective.
    """

    def __init__(self) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._put_back()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._put_back()

    def _put_back(self) -> None:
        if threading.current_thread() is threading.main_thread():  # only it may
            signal.signal(signal.SIGTERM, self.handler)
