"""A separate process for an untrusted file: limited in memory, time and files, and kept from the network.

`limits` says how much it may have, `confine` gives everything else up (by `landlock` and `seccomp` on Linux),
`worker` opens the model in there, and `source` is what the rest of onnxtool sees of it: arrays and ONNX, no code.
"""
