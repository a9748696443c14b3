"""`plastic`, also as `python -m plastic_cli`: it listens to signals before it imports what takes long."""

from plastic_cli.signals import leave_on_signals


def main() -> None:
    """Run the command line and exit."""
    leave_on_signals()
    try:
        from plastic_cli.app import main
    except KeyboardInterrupt:
        import os

        os.write(2, b"interrupted.\n")
        os._exit(130)
    main()


if __name__ == "__main__":
    main()
