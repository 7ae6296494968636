"""Log sampling by pattern."""
