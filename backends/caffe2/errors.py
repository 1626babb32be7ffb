"""The exception that this backend raises for input that its user gave."""

from __future__ import annotations


class InputError(ValueError):
    """The user gave something that cannot be used: a file, a net, an argument, a tensor.

    The message says what is wrong and, where it helps, what to do about it.
    """
