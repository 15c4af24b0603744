"""``python -m brainkit.cli``, if the script is not on the path."""

from __future__ import annotations

from brainkit.cli import main

if __name__ == "__main__":
    main()
