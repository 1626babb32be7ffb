"""The exception for nets that cannot be used."""

from detc.ir import InputError

__all__ = ["InputError"]
