"""The user's own code, which a saved model names and does not hold: modules, and the script that saved it."""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from onnxtool.errors import SourceError, UsageError
from onnxtool.sandbox import confine

SCRIPTS = (".py", ".ipynb")


def is_trusted(full_name: str, trust: Sequence[str]) -> bool:
    """Whether a name, or the module or package that it is in, is among those that the user vouches for."""
    return any(full_name == name or full_name.startswith(f"{name}.") for name in trust)


def files_of_code(source: str, trust: Sequence[str], code: Sequence[Path]) -> list[Path]:
    """What the process of a source must be able to read: the code, and modules next to the file that are trusted."""
    found = [*code]
    for root in _roots(trust):
        if lies_next_to(source, root):
            folder = Path(source).absolute().parent
            found += [folder / root] if (folder / root).is_dir() else sorted(folder.glob("*.py"))
    return found


def make_available(source: str, trust: Sequence[str], code: Sequence[Path], plugins: Sequence[str]) -> None:
    """Make the user's own modules importable in this process, and import the plugins.

    Args:
        source: The model's file, or another source.
        trust: Names that the user vouches for; their modules may lie next to the file.
        code: Folders of modules, and scripts or notebooks that stand for `__main__`.
        plugins: Modules to import: they register converters.

    Raises:
        UsageError: there is no such code, or a plugin cannot be imported.
    """
    for path in code:
        if not path.exists():
            raise UsageError(f"--code {path}: no such file or folder.")
        if path.is_dir():
            if str(path.absolute()) not in sys.path:
                sys.path.append(str(path.absolute()))
        elif path.suffix in SCRIPTS:
            _become_main(definitions(path))
        else:
            raise UsageError(f"--code {path} is neither a folder of modules nor a .py or .ipynb file.")
    if any(lies_next_to(source, root) for root in _roots(trust)):
        finder = NextToModel(Path(source).absolute().parent)
        if finder not in sys.meta_path:
            sys.meta_path.append(finder)
    for plugin in plugins:
        try:
            importlib.import_module(plugin)
        except ImportError as error:
            raise UsageError(
                f"--plugin {plugin} cannot be imported: {error}. Install the package that has it, or give its folder "
                "with --code."
            ) from error


def _roots(trust: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in trust))


def lies_next_to(source: str, root: str) -> bool:
    """Whether a module or package lies next to a model's file, and is none that can be imported as it is."""
    folder = Path(source).absolute().parent
    there = (folder / f"{root}.py").is_file() or (folder / root).is_dir()
    if not there or not Path(source).is_file() or not root.isidentifier() or root in sys.modules:
        return False
    return importlib.util.find_spec(root) is None


class NextToModel(MetaPathFinder):
    """Finds modules in a model's folder, which a confined process may not list."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __eq__(self, other: object) -> bool:
        """Whether it looks in the same folder."""
        return isinstance(other, NextToModel) and self.folder == other.folder

    __hash__ = None  # type: ignore[assignment]  # it is kept in a list

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """A module of the folder, or a package in it."""
        if path is not None:
            return None
        package = self.folder / name / "__init__.py"
        if package.is_file():
            return importlib.util.spec_from_file_location(
                name, package, submodule_search_locations=[str(package.parent)]
            )
        module = self.folder / f"{name}.py"
        return importlib.util.spec_from_file_location(name, module) if module.is_file() else None


# -- Scripts and notebooks --------------------------------------------------------------------------------------


def definitions(path: Path) -> ModuleType:
    """The functions and classes of a script or notebook, with the imports and constants that they use.

    The rest, which loads data and trains, is not run.

    Raises:
        SourceError: it is no Python, or a constant that they use cannot be computed without the rest.
    """
    try:
        tree = ast.parse(_code_of(path), filename=str(path))
    except (SyntaxError, ValueError, KeyError) as error:
        raise SourceError(f"{path} is not Python that can be read: {error}") from error
    module = ModuleType("__main__")
    module.__file__ = str(path.absolute())
    for statement in _kept(tree):
        body = ast.Module([statement], type_ignores=[])
        try:
            with suppress(ImportError):  # of libraries that training alone needs
                exec(compile(body, str(path), "exec"), vars(module))  # noqa: S102 - the user named this file
        except Exception as error:
            raise SourceError(
                f"{path.name}, line {statement.lineno}, which its functions or classes use, cannot be run without "
                f"the rest of the file: {type(error).__name__}: {error}. Move them to a module of their own."
            ) from error
    return module


def _code_of(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = (cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")
    lines = "\n".join("".join(cell) for cell in cells).splitlines()
    return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in lines)


def _kept(tree: ast.Module) -> Iterator[ast.stmt]:
    """Imports, definitions, and assignments of names that the definitions use, in their order."""
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    used = {name for statement in tree.body if isinstance(statement, defined) for name in _names(statement)}
    assigned = [statement for statement in tree.body if isinstance(statement, ast.Assign | ast.AnnAssign)]
    needed: set[ast.stmt] = set()
    while more := [each for each in assigned if each not in needed and _targets(each) & used]:
        needed.update(more)
        used |= {name for each in more for name in _names(each)}
    for statement in tree.body:
        if isinstance(statement, (*defined, ast.Import, ast.ImportFrom)) or statement in needed:
            yield statement


def _names(statement: ast.stmt) -> set[str]:
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}


def _targets(statement: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def _become_main(module: ModuleType) -> None:
    """Let `__main__` have a script's definitions: wholly in a process of ours, else what it lacks."""
    if confine.confined:
        sys.modules["__main__"] = module
        return
    for name, value in vars(module).items():
        vars(sys.modules["__main__"]).setdefault(name, value)
