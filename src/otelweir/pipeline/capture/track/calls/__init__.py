"""Tracked functions, and each of their calls."""
