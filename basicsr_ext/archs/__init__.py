"""Networks, in BasicSR's registry."""
