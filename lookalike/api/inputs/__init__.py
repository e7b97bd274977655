"""What callers pass, checked and converted."""
