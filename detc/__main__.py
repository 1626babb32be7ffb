"""`python -m detc` is the command `detc`."""

import sys

from detc.cli import main

sys.exit(main())
