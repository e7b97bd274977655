"""What a collection returns."""
