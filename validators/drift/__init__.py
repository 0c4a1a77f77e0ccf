"""What a difference costs: labels, scores and quality."""
