"""`python -m router`: the same program as the console script `memoryrouter`."""

from __future__ import annotations

from router.cli import main

if __name__ == "__main__":
    main()
