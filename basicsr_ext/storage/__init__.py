"""Image stores behind one interface: a folder of images, BasicSR's LMDB, and an LMDB of uncompressed images.

:func:`open_store` finds out which of them lies at a path. A store names its images, tells their shapes without
decoding, and reads windows of them. Reading a window of an uncompressed image touches nothing but the window's rows; the
other two decode the whole image first.
"""

from basicsr_ext.storage.base import ImageSpec, ImageStore
from basicsr_ext.storage.basicsr_lmdb import BasicSRLmdbStore
from basicsr_ext.storage.basicsr_lmdb_writer import BasicSRLmdbWriter
from basicsr_ext.storage.folder import FolderStore
from basicsr_ext.storage.opening import open_store
from basicsr_ext.storage.raw_lmdb import RawLmdbStore
from basicsr_ext.storage.raw_lmdb_writer import RawLmdbWriter

__all__ = [
    'BasicSRLmdbStore',
    'BasicSRLmdbWriter',
    'FolderStore',
    'ImageSpec',
    'ImageStore',
    'RawLmdbStore',
    'RawLmdbWriter',
    'open_store',
]
