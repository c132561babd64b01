"""Rules about the model itself, from passes made for them alone."""
