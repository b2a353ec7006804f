"""Run the command `discorder` as `python -m discorder`."""

from discorder.cli import main

if __name__ == "__main__":
    main()
