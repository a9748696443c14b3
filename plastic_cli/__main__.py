"""`plastic`, also as `python -m plastic_cli`: it handles signals before the imports that take long."""

import gc

from plastic_cli.signals import leave_on_signals


def main() -> None:
    """Run the command line and exit."""
    leave_on_signals()
    # Imports make many objects and no garbage: a command turns the collector on again when it runs.
    gc.disable()
    try:
        from plastic_cli.app import main
    except KeyboardInterrupt:
        import os

        os.write(2, b"interrupted.\n")
        os._exit(130)
    main()


if __name__ == "__main__":
    main()
