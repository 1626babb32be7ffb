"""Errors of passes, told to those who write them."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from detc.ir import DetcError, InputError
from detc.passes import PassError


def reported(command: Callable[[], int]) -> int:
    """What the command returns; 1 where a pass failed or was caught, after a message on standard error.

    A pass that failed with an error of its own shows where, from its own first line on.
    """
    try:
        return command()
    except InputError:
        raise
    except DetcError as error:
        cause = error.__cause__ if isinstance(error, PassError) else None
        if cause is not None and cause.__traceback__ is not None:
            # The first frame is the pipeline's call of the pass.
            traceback.print_exception(type(cause), cause, cause.__traceback__.tb_next)
        print(f"detc: error: {error}", file=sys.stderr)
        return 1
