"""One run at a time in an experiment's folder."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from basicsr_ext.errors import UserError, writing_failed


class ExperimentLock:
    """The file ``experiments/.NAME.lock``, locked while a run lasts; it names the process that holds it.

    It lies beside the folder, which BasicSR renames where a run begins anew. The lock is the operating system's (POSIX, as
    NFS has it too): it is gone with the process, however that ends, and forked workers do not hold it.

    Args:
        experiment: Folder of the experiment.
    """

    def __init__(self, experiment: Path):
        self.experiment = experiment
        self.file = experiment.with_name(f'.{experiment.name}.lock')
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Takes the lock; only warns where the file system has none.

        Raises:
            UserError: Another process holds it, or the file cannot be made.
        """
        try:
            import fcntl
        except ImportError:  # not on Windows
            return
        while self._descriptor is None:
            descriptor = self._open()
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                holder = os.read(descriptor, 1000).decode(errors='replace') or 'another process'
                os.close(descriptor)
                raise UserError(
                    f'{self.experiment}: expected that no other run is at work there, found {holder}. Wait until it has '
                    'ended, or stop it, or choose another name.'
                ) from None
            except OSError as error:
                print(
                    f'Warning: {self.file} cannot be locked ({error.strerror}): see to it that no second run has this name.',
                    flush=True,
                )
            if self._is_named(descriptor):
                self._descriptor = descriptor
            else:
                os.close(descriptor)  # a run that ended has removed it since it was opened
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f'process {os.getpid()} on {socket.gethostname()}'.encode())

    def release(self) -> None:
        """Gives the lock back, if this process holds it, and removes the file."""
        if self._descriptor is not None:
            with suppress(OSError):
                self.file.unlink()
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise writing_failed(self.file, error) from None

    def _is_named(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.file))
        except FileNotFoundError:
            return False
