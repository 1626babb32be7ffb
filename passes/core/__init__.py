"""What a pass and a pipeline are, and what watches one run."""
