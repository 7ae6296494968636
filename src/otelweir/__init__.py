"""Weir: an OpenTelemetry distribution for Python."""
