"""The command ``basicsr``."""
