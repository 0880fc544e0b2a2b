"""Adaptive importance learning (AIL, IJCV 2020)."""
