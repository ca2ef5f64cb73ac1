"""``python -m egressproxy`` is the ``egressproxy`` command."""

from egressproxy.cli.main import main

if __name__ == "__main__":
    main()
