"""ML.NET: its rules, what a model needs to keep them, and the bundle that scores it."""
