"""``python -m tribes`` is the ``tribes`` command."""

from tribes.cli.app import main

if __name__ == "__main__":
    main()
