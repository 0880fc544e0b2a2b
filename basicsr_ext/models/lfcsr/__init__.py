"""Low-frequency constrained super-resolution (LFC-SR, arXiv 2208.03324)."""
