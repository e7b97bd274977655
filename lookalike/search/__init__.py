"""From a question to product ids."""
