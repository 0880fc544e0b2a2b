"""Networks, in BasicSR's registry."""

from basicsr_ext.lazy import export

__getattr__, __dir__, __all__ = export(
    __name__,
    {
        'cliquerefiner_arch': ('CliqueRefiner',),
        'criaclnet_arch': ('CriaCLNet',),
        'drrn_arch': ('DRRN',),
        'fsrcnn_arch': ('FSRCNN',),
        'han_arch': ('HAN',),
        'lapsrn_arch': ('LapSRN',),
        'lfcsr_arch': ('LFCSR',),
        'spandrel_arch': ('SpandrelNetwork',),
        'srcnn_arch': ('SRCNN',),
        'srgan_discriminator_arch': ('SRGANDiscriminator',),
        'vdsr_arch': ('VDSR',),
    },
    needs_basicsr=True,
)
