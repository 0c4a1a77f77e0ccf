"""Make the standard error of ONNX Runtime readable."""

from __future__ import annotations

import re

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MESSAGE = re.compile(r"^\S+ \S+ \[[WEF]:onnxruntime:[^\]]*\] (.+)$", re.MULTILINE)
_PLACE = re.compile(
    r"^/\S+\.(?:cc|h):\d+ .*?\) (?:\[with [^\]]*\] )?"  # C++ file, line and function
    r"|^.*?\[ONNXRuntimeError\] : \d+ : \w+ : "
)
_NODE = re.compile(r"^Non-zero status code returned while running (\w+) node\. Name:'(.*?)' Status Message: (.+)$")
LONGEST = 500
MOST = 20


def tidy(message: str) -> str:
    """The first line of a message of ONNX Runtime, without the place in its C++ sources."""
    line = next((line.strip() for line in message.splitlines() if line.strip()), "no message")
    while (shorter := _PLACE.sub("", line)) != line and shorter:
        line = shorter
    if found := _NODE.match(line):
        kind, name, rest = found.groups()
        line = f"{kind} node{f' {name!r}' if name else ''}: {tidy(rest)}"
    return line[:LONGEST]


def runtime_messages(log: str) -> list[str]:
    """The warnings and errors that ONNX Runtime logged, each once, in order, 20 at most."""
    messages = (tidy(match[1]) for match in _MESSAGE.finditer(_COLOUR.sub("", log)))
    return list(dict.fromkeys(messages))[:MOST]
