"""What happens around BasicSR's own training loop: options, ranks, sampling, checkpoints."""
