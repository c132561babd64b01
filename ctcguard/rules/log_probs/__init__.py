"""Rules about the distribution that the loss was given."""
