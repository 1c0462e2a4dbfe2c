"""``python -m gvcore``: the same as the command ``gvcore``."""

import sys

from gvcore.cli import main

if __name__ == "__main__":
    sys.exit(main())
