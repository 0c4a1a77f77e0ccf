"""`python -m onnxtool` is `onnxtool`."""

from onnxtool.cli import main

if __name__ == "__main__":
    main()
