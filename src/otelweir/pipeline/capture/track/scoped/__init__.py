"""What holds in a part of the program: its local trace, and what `otelweir.context` says there."""
