"""The exception for input that a user can correct."""


class InputError(ValueError):
    """A config, a checkpoint, an image or an option of the user's is wrong.

    The message is meant for the user as it is: what is wrong, where (file, key), and what to do about it.
    """
