"""MLflow: a report as a run of its tracking server."""
