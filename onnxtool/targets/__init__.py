"""Deployment targets: the runtimes and services that a model is made ready for."""
