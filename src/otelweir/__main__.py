"""`python -m otelweir` is `weir`, also where no scripts are installed."""

from otelweir.cli import main

if __name__ == "__main__":
    main()
