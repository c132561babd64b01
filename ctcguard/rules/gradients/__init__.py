"""Rules about what reaches the weights."""
