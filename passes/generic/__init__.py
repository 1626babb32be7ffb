"""Passes that know tensors only."""
