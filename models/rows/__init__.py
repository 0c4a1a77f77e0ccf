"""Rows of data: read from files, streamed, made up from what a model says of its inputs."""
