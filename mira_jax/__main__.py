"""`python -m mira_jax COMMAND` runs `mira COMMAND` when the script is not on PATH."""

import sys

from mira_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
