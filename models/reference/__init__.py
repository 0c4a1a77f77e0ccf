"""Reference models of every framework, for demonstrations, tests and benchmarks."""
