"""The exceptions that detc raises on purpose. All derive from `DetcError`.

The command line prints each as one line.
"""

from __future__ import annotations


class DetcError(Exception):
    """Base of every error that detc reports to its user.

    `pass_name` is the pass in which it came up, if that was in one; the message then begins with it.
    """

    pass_name: str = ""

    def __str__(self) -> str:
        text = super().__str__()
        return f"{self.pass_name}: {text}" if self.pass_name else text


class InputError(DetcError, ValueError):
    """The user gave something that cannot be used: a config, a checkpoint, an image, an option.

    The message says what is wrong and what to do about it.
    """


class UnsupportedError(InputError):
    """The model holds something that this frontend or target does not take. The message lists all of it."""


class IRError(DetcError):
    """A graph was built or used wrongly."""


class VerificationError(IRError):
    """A graph breaks a rule of the IR. The message shows the op, its source, the pass and the IR around."""


class ParseError(IRError):
    """IR text that does not parse. The message gives line and column."""


class SizeIsNoNumber(IRError):
    """Code wants a symbolic size as a number: `int(size)`, `range(size)`, or an operator that takes numbers only."""

    def __init__(self, size: str, where: str) -> None:
        super().__init__(f"{where} needs the size {size} as a number")
        self.size = size
        self.where = where


class SizeGrows(IRError):
    """A size is computed from sizes again and again, and nothing of it cancels."""

    def __init__(self, size: str, where: str) -> None:
        super().__init__(f"{where} computes a size with {len(size)} characters: {size[:60]}...")
        self.size = size
        self.where = where
