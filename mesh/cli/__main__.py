"""`python -m mesh.cli`, for processes that start the command line anew."""

from __future__ import annotations

import sys

from mesh.cli import main

if __name__ == "__main__":
    sys.exit(main())
