"""The papers' mathematics as pure functions on tensors and arrays: no BasicSR, no files, no options."""
