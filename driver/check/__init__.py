"""Comparing what was compiled with the model."""
