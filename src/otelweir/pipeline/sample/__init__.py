"""Sampling: which telemetry is kept, and what each kept record stands for."""
