"""Converting: one module a framework, found through the public hook in `framework`."""
