"""A trained network and how it is run: weights, requirements, inference, tiles, self-ensemble, devices."""

from basicsr_ext.lazy import export

__getattr__, __dir__, __all__ = export(
    __name__,
    {
        'inference': ('Inference', 'super_resolve'),
        'tiling': ('Tiles', 'tiled_forward'),
    },
)
