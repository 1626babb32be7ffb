"""The exception for input that a user can correct: the IR's, so that one `except detc.InputError` catches all."""

from detc.ir import InputError

__all__ = ["InputError"]
