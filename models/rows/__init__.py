"""Rows of data: read from files, streamed, generated from what a model knows of its inputs."""
