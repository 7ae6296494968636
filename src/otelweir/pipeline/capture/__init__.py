"""What enters the pipeline."""
