"""Make the standard error of ONNX Runtime readable."""

from __future__ import annotations

import re

# A message ends where its colour does, and may have several lines; one without a colour has one.
_MESSAGE = re.compile(
    r"^(?:\x1b\[[0-9;]+m\S+ \S+ \[[WEF]:onnxruntime:[^\]]*\] ([^\x1b]+)"
    r"|\S+ \S+ \[[WEF]:onnxruntime:[^\]]*\] (.+)$)",
    re.MULTILINE,
)
_PLACE = re.compile(
    r"^/\S+\.(?:cc|h):\d+ .*?\) (?:\[with [^\]]*\] )?"  # C++ file, line and function
    r"|^.*?\[ONNXRuntimeError\] : \d+ : \w+ : "
)
_NODE = re.compile(r"^Non-zero status code returned while running (\w+) node\. Name:'(.*?)' Status Message: (.+)$")
LONGEST = 2000
MOST = 20


def tidy(message: str) -> str:
    """A message of ONNX Runtime in one line, without the place in its C++ sources."""
    line = " ".join(message.split()) or "no message"
    while (shorter := _PLACE.sub("", line)) != line and shorter:
        line = shorter
    if found := _NODE.match(line):
        kind, name, rest = found.groups()
        line = f"{kind} node{f' {name!r}' if name else ''}: {tidy(rest)}"
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def runtime_messages(log: str) -> list[str]:
    """The warnings and errors that ONNX Runtime logged, each once, in order, 20 at most."""
    messages = (tidy(match[1] or match[2]) for match in _MESSAGE.finditer(log))
    return list(dict.fromkeys(messages))[:MOST]
