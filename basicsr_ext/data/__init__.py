"""Datasets in BasicSR's registry."""

from basicsr_ext.lazy import export

__getattr__, __dir__, __all__ = export(
    __name__,
    {
        'mixed_store_dataset': ('MixedStoreDataset',),
        'paired_centroid_dataset': ('PairedCentroidDataset',),
        'paired_store_dataset': ('PairedStoreDataset',),
    },
    needs_basicsr=True,
)
