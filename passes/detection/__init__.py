"""Passes that know what a detector is made of."""
