"""`python -m specialsam.cli`."""

from specialsam.cli import main

if __name__ == "__main__":
    main()
