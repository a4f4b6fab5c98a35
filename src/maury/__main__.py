"""``python -m maury`` is ``maury``."""

from maury.cli import main

if __name__ == "__main__":
    main()
