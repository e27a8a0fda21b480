"""python -m unroll: the command line, as the console script ``unroll``."""

import sys

from unroll.cli import main

if __name__ == "__main__":
    sys.exit(main())
