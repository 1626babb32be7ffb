"""`python -m detc` is the command `detc`."""

import sys

from .commands.main import main

sys.exit(main())
