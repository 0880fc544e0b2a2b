"""Finished pieces of a long step, kept beside its output, so that a stopped step can be gone on with."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from basicsr_ext.errors import Interrupted, UserError
from basicsr_ext.prepare.whole_files import atomic_write, packed, unpacked

SUFFIX = '.parts'
_SETTINGS = 'settings.json'
_WHOLE = 'all_pieces_are_here'


class Pieces:
    """The folder ``<output>.parts``: settings of the step, and a file for each finished piece.

    Every file appears under its name only when it is whole, so the step may be killed at any time. Several processes may
    save pieces; one of them, the owner, begins and removes the folder, and locks it meanwhile.

    Args:
        output: What the step makes.
        settings: All that its result depends on, as JSON can hold it.

    Attributes:
        owned: Whether this process has begun the folder, or goes on with it.
        went_on: Whether a former run's settings were there.
    """

    def __init__(self, output: str | Path, settings: Mapping[str, Any]) -> None:
        self.output = Path(output)
        self.folder = self.output.with_name(self.output.name + SUFFIX)
        self._settings = json.loads(json.dumps(settings))
        self.owned = False
        self.went_on = False
        self._lock: int | None = None

    def begin(self) -> None:
        """Makes the folder, or goes on with what a stopped run with the same settings left there.

        Raises:
            UserError: Another process is at work, the settings differ, or the folder cannot be written.
        """
        try:
            with self.reporting():
                self.folder.mkdir(parents=True, exist_ok=True)
                self._lock_folder()
                self._settle()
        except BaseException:
            self.leave()
            raise
        self.owned = True

    def _settle(self) -> None:
        """Compares the settings with those that lie there, or writes them."""
        file = self.folder / _SETTINGS
        if file.exists():
            self._compare(_read_settings(file))
            self.went_on = True
            return
        try:
            atomic_write(file, json.dumps(self._settings, indent=1).encode())
        except OSError:
            self.remove()
            raise

    def _compare(self, found: Mapping[str, Any]) -> None:
        names = [*self._settings, *(name for name in found if name not in self._settings)]
        differing = [
            f'{name} was {_short(found.get(name))}, is {_short(self._settings.get(name))}'
            for name in names
            if found.get(name) != self._settings.get(name)
        ]
        if differing:
            raise UserError(
                f'{self.folder}: a stopped run left its work here, and its settings were others: '
                f'{"; ".join(differing)}. Go on with its settings, or remove this folder to begin anew.'
            )

    def has(self, index: int) -> bool:
        """Whether a piece is finished."""
        return self._file(index).exists()

    def save(self, index: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps the arrays of a piece under their names."""
        with self.reporting():
            atomic_write(self._file(index), *packed(arrays))

    def load(self, index: int) -> dict[str, np.ndarray]:
        """Gives the arrays of a finished piece by name, read-only.

        Raises:
            Interrupted: Its file cannot be read; or it is damaged, and removed, so that the next run makes it anew.
        """
        file = self._file(index)
        try:
            return unpacked(file.read_bytes())
        except OSError as error:  # which says nothing against the piece
            raise Interrupted(
                f'{file}: reading a piece of the work failed ({error.strerror or error}). Run the same command again '
                'when it can be read.'
            ) from error
        except (ValueError, TypeError, KeyError) as error:
            with suppress(OSError):
                file.unlink(missing_ok=True)
            raise Interrupted(
                f'{file}: a piece of the work is damaged ({error}), and was removed. Run the same command again: that '
                'makes it anew.'
            ) from error

    @property
    def whole(self) -> bool:
        """Whether a former run had all pieces and began to make the output, which may be there already."""
        return (self.folder / _WHOLE).exists()

    def set_whole(self) -> None:
        """Notes that all pieces are there: outputs that exist from now on are made of them."""
        with self.reporting():
            atomic_write(self.folder / _WHOLE, b'')

    def unset_whole(self) -> None:
        """Takes that note back: no output was made."""
        with suppress(OSError):
            (self.folder / _WHOLE).unlink(missing_ok=True)

    def leave(self) -> None:
        """Lets go of the folder; it stays, to be gone on with."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def remove(self) -> None:
        """Removes the folder: settings and note last, so that a kill in between leaves what can be understood."""
        for file in self.folder.glob('*'):
            if file.name not in (_SETTINGS, _WHOLE):
                with suppress(OSError):
                    shutil.rmtree(file) if file.is_dir() else file.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.leave()

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Turns a failure to write into a message."""
        try:
            yield
        except OSError as error:
            raise Interrupted(
                f'{self.output}: writing failed ({error.strerror or error}). Check that the place is writable and has '
                'room, or choose another.'
            ) from error

    def _file(self, index: int) -> Path:
        return self.folder / f'{index:06d}.piece'

    def _lock_folder(self) -> None:
        """The lock ends with the process, however that ends."""
        try:
            import fcntl
        except ImportError:  # no such locks on this system
            return
        self._lock = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.leave()
            raise UserError(f'{self.output}: another process is making it now. Run one at a time.') from None
        except OSError:  # a file system without locks
            pass


def _read_settings(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f'{file}: damaged. Remove the folder {file.parent} to begin anew.')
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + '...'
