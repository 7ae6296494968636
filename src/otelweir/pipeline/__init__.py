"""The pipeline: capture, sample; alphabetical order is flow order."""
