"""What the guard says of itself."""
