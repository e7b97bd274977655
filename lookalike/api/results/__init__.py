"""The values that a collection returns."""
