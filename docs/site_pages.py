"""MkDocs' hook: pages and files that lie outside of docs/ are part of the site, under the links that GitHub takes."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", **{name: name for name in ("SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")}}
"""File of the repository to its page."""

_LINK = re.compile(r"(\]\()(?!https?:|#|mailto:)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and every file that a page links to."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    sources = {ROOT / name: Path() for name in PAGES}
    sources |= {Path(str(file.abs_src_path)): Path("docs") for file in files.documentation_pages()}
    for source in sources:
        for _, target in _LINK.findall(source.read_text(encoding="utf-8")):
            path = (source.parent / target).resolve()
            name = path.relative_to(ROOT).as_posix()
            outside = path.is_file() and not name.startswith("docs/") and path.suffix != ".md"
            if outside and files.get_file_from_path(f"files/{name}") is None:
                files.append(File.generated(config, f"files/{name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as GitHub takes them become links within the site."""
    source = Path(str(page.file.abs_src_path))
    at = PurePosixPath(page.file.src_uri).parent

    def moved(match: re.Match[str]) -> str:
        name = (source.parent / match[2]).resolve().relative_to(ROOT).as_posix()
        place = PAGES.get(name) or (name.removeprefix("docs/") if name.startswith("docs/") else f"files/{name}")
        up = "../" * len(at.parts)
        return f"{match[1]}{normpath(up + place)}"

    return _LINK.sub(moved, markdown)


_SHIM = "https://unpkg.com/iframe-worker/shim"
"""What searches in pages that are files. The theme would load it from elsewhere; the site has it."""


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Load nothing from elsewhere."""
    return output.replace(_SHIM, get_relative_url("assets/iframe-worker.js", page.url))


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    """Load nothing from elsewhere, in the page of what is not found."""
    return output_content.replace(_SHIM, "/assets/iframe-worker.js")
