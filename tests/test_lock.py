"""The lock: each package that `make test` installs has a version and hashes, and is there."""

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
# One release, perhaps for some machines only, and its files' hashes. Nothing else: no address, no path.
ENTRY = r"([a-z0-9-]+==[a-z0-9.]+(?: ; [\w .<>=!'()-]+?)?)((?: \\\n    --hash=sha256:[0-9a-f]{64})*)\n"
# Whose build depends on the machine, with what it needs on a GPU, and what stands in the place of a locked package.
TORCH = re.compile(r"(torch|torchvision|triton|onnxruntime-(gpu|openvino))==|(cuda|nvidia)-")


def pins(name):
    text = re.sub(r"^#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE)
    assert re.fullmatch(f"(?:{ENTRY})+", text)
    return dict(re.findall(ENTRY, text))


@pytest.mark.parametrize("name", ["requirements.lock", "tools.lock"])
def test_every_release_is_hashed(name):
    assert all(pins(name).values())


def test_the_lock_and_the_constraints_are_of_one_make_lock():
    constraints = set(pins("constraints.txt"))
    assert set(pins("requirements.lock")) == {pin for pin in constraints if not TORCH.match(pin)}


def test_what_the_package_requires_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    locked = {}
    for pin in pins("constraints.txt"):
        requirement = Requirement(pin)
        locked.setdefault(requirement.name, []).append(str(requirement.specifier).removeprefix("=="))
    for requirement in map(Requirement, required):
        if requirement.name != "onnxtool":  # one extra that holds another
            versions = locked[canonicalize_name(requirement.name)]
            assert all(requirement.specifier.contains(version) for version in versions), requirement
