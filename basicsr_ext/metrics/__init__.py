"""Metrics, in BasicSR's registry."""

from basicsr_ext.lazy import export

__getattr__, __dir__, __all__ = export(
    __name__,
    {
        'dists_metric': ('DISTS',),
        'lpips_metric': ('LPIPS',),
        'niqe_metric': ('NIQE',),
        'nrqm_metric': ('NRQM',),
        'pi_metric': ('PI',),
        'psnr_metric': ('PSNR',),
        'ssim_metric': ('SSIM',),
    },
    needs_basicsr=True,
)
