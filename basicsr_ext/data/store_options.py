"""Typed structures for the ``datasets`` blocks that this package's datasets read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from basicsr_ext.files import expand_home
from basicsr_ext.options.config import OptionBlock


def _one_placeholder(value: str) -> str:
    if value.count('{}') != 1 or set('{}') & set(value.replace('{}', '')):
        raise ValueError('Expected {} once, in place of the GT image\'s name, such as "{}x4"')
    return value


DataRoot = Annotated[Path, AfterValidator(expand_home)]
KeyTemplate = Annotated[str, AfterValidator(_one_placeholder)]


class StoreOptions(OptionBlock):
    """What the blocks of all of this package's datasets have.

    Attributes:
        name: Name of the dataset, for logs and result folders.
        type: Class name of the dataset.
        phase: Added by BasicSR from the block's own name.
        block: Key of the block, such as ``val_2``; added by this package's commands, for messages.
        scale: HR pixels per LQ pixel along each side; added by BasicSR from the top of the option file.
        gt_size: Height and width of the training crops, in HR pixels; a multiple of ``scale``. Training only.
        use_hflip: Flip training crops horizontally, one in two.
        use_rot: Flip training crops vertically, one in two, and transpose them, one in two.
        channels: 3 reads RGB, also from grey images; 1 demands grey images; unset takes each store as it is. See
            :func:`~basicsr_ext.storage.open_store`.
        color: ``y`` reads luminance of RGB images, not rounded, on [16/255, 235/255]; as BasicSR's own datasets do.
        sampling: Images are drawn in proportion to their ``area``, or each ``image`` as often as any other.
        grid: Training crops lie side by side in the images, as those cut before a training, and each index is one of them:
            an epoch shows every crop as often as ``dataset_enlarge_ratio`` says. What is left over at the image's right and
            bottom, as it is flipped, is not seen. Otherwise crops lie anywhere.
        output: ``float32`` in [0, 1], or ``uint8``: stored values as they are.
        geometry: Add a ``geometry`` entry to each sample, see :class:`~basicsr_ext.data.crop_geometry.Geometry`.
        num_worker_per_gpu: Loader processes for each rank. 0, or unset: a thread reads ahead, which is fastest from raw
            stores; processes are worth their while where images are decoded.
        batch_size_per_gpu: Samples of a batch on each rank.
        dataset_enlarge_ratio: Times that each index occurs in an epoch.
        prefetch_mode: ``cuda`` copies batches to the GPU ahead of time; ``cpu`` and unset differ under BasicSR's own command
            only.
        num_prefetch_queue: Batches that the thread holds ready.
        pin_memory: Hand over batches in page-locked memory.
        persistent_workers: Keep loader processes from epoch to epoch.
    """

    name: str | int
    type: str = ''
    phase: Literal['train', 'val', 'test']
    block: str | None = None
    scale: int = Field(ge=1)
    gt_size: int | None = Field(None, ge=1, validate_default=True)
    use_hflip: bool = True
    use_rot: bool = True
    channels: Literal[1, 3] | None = None
    color: Literal['rgb', 'y'] | None = None
    sampling: Literal['area', 'image'] = 'area'
    grid: bool = False
    output: Literal['float32', 'uint8'] = 'float32'
    geometry: bool = False
    num_worker_per_gpu: int | None = Field(None, ge=0)
    batch_size_per_gpu: int | None = Field(None, ge=1)
    dataset_enlarge_ratio: float = Field(1, ge=1)
    prefetch_mode: Literal['cuda', 'cpu'] | None = None
    num_prefetch_queue: int = Field(1, ge=1)
    pin_memory: bool = False
    persistent_workers: bool = False

    @property
    def where(self) -> str:
        """Key path of the block in an option file."""
        return f'datasets.{self.block or self.phase}'

    @field_validator('gt_size')
    @classmethod
    def _whole_lq_pixels(cls, value: int | None, info: ValidationInfo) -> int | None:
        phase, scale = info.data.get('phase'), info.data.get('scale')
        if phase == 'train' and value is None:
            raise ValueError('Training needs the size of the crops in HR pixels')
        if phase in ('val', 'test') and value is not None:
            raise ValueError(f'Expected nothing, since phase {phase} gives whole images; remove it')
        if value is not None and scale and value % scale:
            raise ValueError(f'Expected a multiple of scale ({scale})')
        return value


class PairedStoreOptions(StoreOptions):
    """Options of :class:`~basicsr_ext.data.paired_store_dataset.PairedStoreDataset`, besides those of :class:`StoreOptions`.

    Attributes:
        dataroot_gt: Image store of the GT images; may be left out in ``val`` and ``test``, then samples have no ``gt``.
        dataroot_lq: Image store of the LQ images.
        filename_tmpl: LQ key, with ``{}`` in place of the GT key.
    """

    dataroot_gt: DataRoot | None = Field(None, validate_default=True)
    dataroot_lq: DataRoot
    filename_tmpl: KeyTemplate = '{}'

    @field_validator('dataroot_gt')
    @classmethod
    def _gt_in_training(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None and info.data.get('phase') == 'train':
            raise ValueError('Training needs GT images: expected the path of an image store')
        return value


class PairedCentroidOptions(PairedStoreOptions):
    """Options of :class:`~basicsr_ext.data.paired_centroid_dataset.PairedCentroidDataset`.

    Attributes:
        dataroot_centroid: Image store of the centroids, ``scale`` times as large as the LQ images.
        dataroot_centroid_lq: Image store of the downsampled centroids, as large as the LQ images.
    """

    dataroot_centroid: DataRoot
    dataroot_centroid_lq: DataRoot
