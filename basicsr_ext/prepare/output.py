"""Where a step's images go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from basicsr_ext.errors import UserError
from basicsr_ext.files import follow_links
from basicsr_ext.prepare.png import PNG_TYPES
from basicsr_ext.storage import FolderStore, ImageStore

KIND = 'images'


class Output(NamedTuple):
    """Where images go, and in which form.

    Attributes:
        path: A store where it ends in ``.lmdb``, else a folder of PNGs.
        channels: Of every image, 1 or 3.
        dtype: Of every image.
        layout: Of a store: ``raw`` or ``basicsr``.
        compress_level: Of PNGs.
        meta: Kept in a raw store.
    """

    path: Path
    channels: int
    dtype: np.dtype
    layout: str = 'raw'
    compress_level: int = 1
    meta: Mapping[str, Any] = MappingProxyType({})

    @property
    def is_store(self) -> bool:
        """Whether an LMDB is made; else a folder."""
        return self.path.suffix == '.lmdb'

    @property
    def holds_pngs(self) -> bool:
        """Whether images are encoded."""
        return not self.is_store or self.layout == 'basicsr'

    def check_apart_from(self, source: ImageStore) -> None:
        """Refuses a folder of images within the one that is read: the next reading would take them for its own.

        Raises:
            UserError: Names both.
        """
        if self.is_store or not isinstance(source, FolderStore):
            return
        if follow_links(self.path).is_relative_to(follow_links(source.path)):
            raise UserError(
                f'--output: expected a folder outside of {source.path}, whose images are read, found {self.path}: from then '
                'on its images would be read there as well.'
            )

    def check(self) -> None:
        """Refuses what PNGs cannot hold."""
        if self.holds_pngs and self.dtype not in PNG_TYPES:
            way_out = 'choose the layout raw' if self.is_store else 'write into a store (a path ending in .lmdb)'
            raise UserError(f'{self.path}: PNG holds uint8 or uint16, not {self.dtype}: {way_out}.')
