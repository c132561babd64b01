"""Rules about what the loss returned."""
