"""Towhee operators as encoders, and encoders as Towhee operators."""
