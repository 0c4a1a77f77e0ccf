"""Reports in a notebook: executed by a kernel, shown by a browser in light and in dark."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbconvert import HTMLExporter

SETUP = """
import numpy as np
from sklearn.linear_model import LogisticRegression

import onnxtool

x = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
model = LogisticRegression().fit(x, x[:, 0] > 0)
"""
CELLS = (
    SETUP,
    "report = onnxtool.convert(model, 'model.onnx', data=x)\nreport",
    "print(report)",
    "report.to_frame('parity')",
    "speed = onnxtool.bench('model.onnx', batches=[1, 10], duration=0.1)\nspeed",
    "speed['model.onnx'].latency(batch=1, provider='cpu').p50",
    "report[0].parity",
    "wrong = model.__class__().fit(x, x[:, 0] > 1)\nonnxtool.verify('model.onnx', wrong, data=x)",
)

PROBE = Path(__file__).with_name("notebook_probe.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """A notebook that ran, and the answers to Tab."""
    folder = tmp_path_factory.mktemp("notebook")
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    content.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    environment = {"CI": "", "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    client = NotebookClient(content, timeout=300, resources={"metadata": {"path": str(folder)}})
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with client.setup_kernel():

            def complete(code):
                async def ask():
                    return await client.kc.complete(code, reply=True, timeout=60)

                return run_sync(ask)()["content"]["matches"]

            for index, cell in enumerate(content.cells):
                client.execute_cell(cell, index)
            completed = {code: complete(code) for code in ("report.", "report['", "speed[0].")}
    content.metadata["completed"] = completed
    return content


def _outputs(notebook, cell, mime):
    return [
        output["data"][mime] for output in notebook.cells[cell].outputs if output.get("data", {}).get(mime, "")
    ]


def test_a_report_at_the_end_of_a_cell_is_a_line_and_a_fragment(notebook):
    (line,) = _outputs(notebook, 1, "text/plain")
    assert line == "<onnxtool convert: ✓ passed, model.onnx, 0 of 300 rows off>"
    (fragment,) = _outputs(notebook, 1, "text/html")
    assert fragment.startswith('<div class="onnxtool-report">')
    assert "<script" not in fragment
    assert "http" not in fragment.replace("http://www.w3.org/2000/svg", "")
    assert _outputs(notebook, 6, "text/plain")[0].startswith("Parity(rows=300")
    assert "\n" not in _outputs(notebook, 6, "text/plain")[0]


def test_print_writes_what_the_terminal_shows(notebook):
    text = "".join(output["text"] for output in notebook.cells[2].outputs)
    assert text.startswith("✓ PASSED")
    assert "Parity over 300 rows" in text


def test_common_numbers_are_short(notebook):
    assert 0 < float(_outputs(notebook, 5, "text/plain")[0]) < 1


def test_progress_showed_and_is_gone(notebook):
    for cell in (1, 4, 7):
        displays = [output for output in notebook.cells[cell].outputs if output.output_type == "display_data"]
        assert [output["data"] for output in displays] == [{"text/html": "", "text/plain": ""}]


def test_tab_completes_to_what_is_ours(notebook):
    completed = notebook.metadata["completed"]
    names = {name.rpartition(".")[2] for name in completed["report."]}
    assert {"save", "to_frame", "subjects", "passed"} <= names
    assert not [
        name for name in names if name.startswith(("model_", "parse_", "dict", "json", "copy", "construct"))
    ]
    assert any("model.onnx" in match for match in completed["report['"])
    assert {"latency", "cell", "parity"} <= {name.rpartition(".")[2] for name in completed["speed[0]."]}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_shows_it_in_the_theme_of_the_notebook(notebook, theme, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
    if browser is None:
        pytest.skip("there is no Chromium")
    page, _ = HTMLExporter(theme=theme).from_notebook_node(notebook)
    page = page.replace("</body>", f"<script>{PROBE}</script></body>")
    file = tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1000,1000", "--dump-dom", file.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    found = json.loads(done.stdout.partition('<pre id="found">')[2].partition("</pre>")[0])
    assert found["reports"] == 3
    assert found["charts"] > 5
    assert found["backdrop"] == {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 18, 22)"}[theme]
    assert found["contrast"] > 4.5  # WCAG 2, level AA
    assert found["rows"] == ["rgba(0, 0, 0, 0)"]  # not the stripes of the notebook's tables
    assert not found["wide"]
    assert not found["leaks"]
