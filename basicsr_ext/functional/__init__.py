"""The papers' mathematics as pure functions on tensors and arrays: no BasicSR, no files, no options.

A function that has the name of its module is imported from there: ``from basicsr_ext.functional.psnr import psnr``.
"""

from basicsr_ext.lazy import export

__getattr__, __dir__, __all__ = export(
    __name__,
    {
        'admm': ('dual_update', 'penalty', 'regularizer'),
        'centroid': ('cosine_alpha', 'linear_alpha', 'mix', 'progress', 'sigmoid_alpha', 'step_alpha'),
        'contextual': ('contextual_loss',),
        'criteria': (
            'adversarial_map',
            'align_loss',
            'dissimilarity_map',
            'feature_map',
            'pixel_map',
            'spatial_mean',
            'uniformity_loss',
        ),
        'importance': ('direct_importance', 'initial_importance', 'raised_importance', 'random_importance', 'round_of'),
        'noise_windows': ('flat_windows',),
        'precision': ('autocast', 'exact_float32'),
        'resize': ('downsample', 'imresize', 'mod_crop', 'upsample'),
        'self_paced': ('attention', 'self_paced_loss'),
        'ssim_map': ('SSIMSettings', 'gaussian_window'),
        'wavelet': ('gaussian_low', 'haar_dwt', 'haar_high', 'haar_idwt', 'haar_low'),
        'ycbcr': ('rgb_to_ycbcr', 'ycbcr_to_rgb'),
    },
)
