"""`python -m tmemfs`: the same as the command `tmemfs`."""

import sys

from tmemfs.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
