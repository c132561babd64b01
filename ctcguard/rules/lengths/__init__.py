"""Rules about frames and label counts."""
