"""`python -m discorder` is the command `discorder`."""

from discorder.cli import main

if __name__ == "__main__":
    main()
