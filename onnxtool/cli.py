"""The command line: parse, call the API, show the report, say how it ended.

Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from onnxtool import janitor
from onnxtool._version import __version__
from onnxtool.errors import OnnxtoolError, UsageError
from onnxtool.files import check_writable
from onnxtool.interrupts import deferred_interrupts
from onnxtool.sandbox.limits import Limits, default_memory, parse_size
from onnxtool.system import fit_console, write_exactly
from onnxtool.targets import target as registry

if TYPE_CHECKING:
    from onnxtool.api import Progress
    from onnxtool.reports.model import Report

PASSED, FAILED, BAD_INPUT = 0, 1, 2

_NO_BUGS = (errno.ENAMETOOLONG, errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
"""Errors of the system that no option avoids: a name that is too long, a full disk."""

Command = TypeVar("Command", bound=Callable[..., Any])


def main() -> None:
    """Run the command line and exit: 0 passed, 1 a gate failed, 2 bad usage or bad input."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a stopped run cleans up as Ctrl-C does
    for stream in (sys.stdout, sys.stderr):
        fit_console(stream)
    try:
        janitor.start()
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = BAD_INPUT
    except (click.Abort, KeyboardInterrupt) as stop:
        reasons = (stop.__cause__ or stop).args
        click.echo(f"onnxtool: interrupted. {reasons[0] if reasons else 'Nothing was written.'}", err=True)
        code = BAD_INPUT
    except OnnxtoolError as error:
        _complain(str(error))
        code = BAD_INPUT
    except MemoryError:
        _complain("There is not enough memory for this model and these rows.")
        code = BAD_INPUT
    except BrokenPipeError:
        _give_up_output()
        code = BAD_INPUT
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NO_BUGS:
            _complain(f"{str(error.filename or 'Standard output')[:60]}: {error.strerror}.")
            if error.filename is None:
                _give_up_output()
        else:
            traceback.print_exc()
            click.echo("onnxtool: this is a bug in onnxtool. Please report it with the lines above.", err=True)
        code = BAD_INPUT
    sys.exit(code or PASSED)


def _give_up_output() -> None:
    """Write no more to standard output, or Python complains when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str) -> None:
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from onnxtool.reports import github

        click.echo(github.error(message), err=True)
    else:
        click.echo(f"onnxtool: {message}", err=True)


_DONE = "Exit status: 0 done, 2 bad usage or bad input."
_GATED = "Exit status: 0 passed, 1 a gate failed, 2 bad usage or bad input."
_STATUSES = {
    "doctor": "Exit status: 0 nothing is broken, 1 something installed does not work, 2 bad usage.",
    **dict.fromkeys(("add", "inspect", "report", "show"), _DONE),
}
"""Command to what its exit status says; that of all others is of their gates."""


class _Group(click.Group):
    """Commands whose help ends with their exit statuses."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add one."""
        if not isinstance(cmd, click.Group):
            cmd.epilog = _STATUSES.get(str(name or cmd.name), _GATED)
        super().add_command(cmd, name)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="onnxtool")
def cli() -> None:
    """Convert trained models to ONNX, prove that they give the same results, and measure them.

    Exit status: 0 passed, 1 a gate failed, 2 bad usage or bad input.
    """


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_loading = _options(
    click.option(
        "--input", "inputs", multiple=True, metavar="NAME:DTYPE[DIMS]",
        help="An input of a model that carries no signature, as in image:float32[batch,3,224,224]. Repeatable.",
    ),
    click.option(
        "--trust", multiple=True, metavar="NAME",
        help="Full name of a class or function, package.Class, that the source file may use, or of a module all of "
        "which it may use. Repeatable.",
    ),
    click.option(
        "--code", multiple=True, type=click.Path(path_type=Path), metavar="PATH",
        help="Folder of your own modules that the source file names, or the .py or .ipynb that saved it. Repeatable.",
    ),
    click.option(
        "--plugin", "plugins", multiple=True, metavar="MODULE",
        help="Module that registers converters with onnxtool.register_converter. Repeatable.",
    ),
    click.option(
        "--weights", type=click.Path(path_type=Path),
        help="Weights (safetensors, or a state dict) for a package.module:callable.",
    ),
    click.option(
        "--base", type=click.Path(path_type=Path),
        help="Folder of the base model of a PEFT adapter. [default: the one next to it]",
    ),
    click.option(
        "--signature",
        metavar="NAME",
        help="Signature of a SavedModel or .tflite file. [default: serving_default]",
    ),
    click.option(
        "--sandbox", type=click.Choice(["on", "require", "off"]), default="on", show_default=True,
        help="Open the source file in a separate process: no network, none of your other files, no programs. "
        "require: refuse it where this system cannot keep all of that.",
    ),
    click.option("--no-sandbox", is_flag=True, help="As --sandbox=off."),
    click.option(
        "--sandbox-memory", metavar="SIZE", callback=lambda context, parameter, value: value and parse_size(value),
        help="Memory that the process may allocate, as in 8GiB. [default: half of the memory, at least 8GiB]",
    ),
    click.option(
        "--sandbox-timeout", type=float, default=600.0, show_default=True, metavar="SECONDS",
        help="Time limit of opening the file, of converting it, and of running one batch of rows.",
    ),
    click.option(
        "--sandbox-files", type=int, default=256, show_default=True, metavar="N",
        help="Files that it may have open at a time.",
    ),
)  # fmt: skip


def _loading_arguments(
    sandbox: str,
    no_sandbox: bool,
    sandbox_memory: int | None,
    sandbox_timeout: float,
    sandbox_files: int,
    **arguments: Any,
) -> dict[str, Any]:
    """A command's arguments as the API has them."""
    if no_sandbox and sandbox == "require":
        raise UsageError("--no-sandbox and --sandbox=require contradict each other.")
    required = sandbox == "require"
    limits = Limits(sandbox_memory or default_memory(), sandbox_timeout, sandbox_files, require=required)
    return {**arguments, "sandbox": None if no_sandbox or sandbox == "off" else limits}


_rows = _options(
    click.option(
        "--data", type=click.Path(path_type=Path),
        help="Real rows: .npz, .npy, .csv, .parquet or .json. Without it, rows are made up from the signature.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of made-up rows."),
)  # fmt: skip


def _limits(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, float] | None:
    """Read `X` for all outputs and `OUTPUT=X` for one."""
    limits: dict[str, float] = {}
    for value in values:
        name, _, number = value.rpartition("=")
        try:
            limits[name or "*"] = float(number)
        except ValueError:
            limits[name or "*"] = -1.0
        if not limits[name or "*"] >= 0:
            raise UsageError(f"--{parameter.name} {value!r} is neither a number from 0 on nor OUTPUT=NUMBER.")
    return limits or None


_accept_version = click.option(
    "--accept-version", multiple=True, metavar="SAVED",
    help="Release that saved SOURCE, as 1.3.2, whose files mean the same to the one installed. Repeatable.",
)  # fmt: skip

_expected = click.option(
    "--expected", type=click.Path(path_type=Path), metavar="FILE",
    help="Right answers to the rows of --data, by the output's name: the truth instead of SOURCE's.",
)  # fmt: skip

_tolerances = _options(
    *(
        click.option(
            f"--{name}", multiple=True, metavar="X|OUTPUT=X", callback=_limits,
            help=f"{kind} tolerance, of all outputs or of one. Repeatable. [default: derived from the model]",
        )
        for name, kind in (("rtol", "Relative"), ("atol", "Absolute"))
    )
)  # fmt: skip

_accept_rounding = click.option(
    "--accept-input-rounding", is_flag=True,
    help="Take what it costs to cast rows to the ONNX model's inputs for no drift. The report and, of convert, the "
    "model's metadata say so.",
)  # fmt: skip

_accept_ties = click.option(
    "--accept-ties", is_flag=True,
    help="Take another right answer for no drift where SOURCE's own definition has several, as among equally far "
    "neighbours. The report and, of convert, the model's metadata say so.",
)  # fmt: skip


class _Targeted(click.Command):
    """A command that takes a deployment target.

    The registered targets are looked up when it runs or shows its help: they are the choices of `--target`, and
    their own options come after it.
    """

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Its parameters, in their order in the help."""
        command = cast(registry.Command, self.name)
        params = super().get_params(ctx)
        place = next(place for place, param in enumerate(params) if param.name == "target")
        params[place].type = click.Choice(registry.targets_of(command))
        own = [_target_option(definitions) for definitions in registry.options_of(command).values()]
        if taken := {option.name for option in own} & {param.name for param in params}:
            raise UsageError(
                f"A target has the option {min(map(str, taken))!r}, which {command} has already. "
                "Uninstall the distribution that registers it."
            )
        return [*params[: place + 1], *own, *params[place + 1 :]]


def _target_option(definitions: Mapping[str, registry.Option]) -> click.Option:
    """An option of one target or of several, whose help names them."""
    option = next(iter(definitions.values()))
    return click.Option(
        [option.flag, option.name],
        type=click.Choice(option.choices) if option.choices else option.kind,
        is_flag=option.kind is bool,
        default=None,
        metavar=option.metavar,
        help=" ".join(f"For {name}: {one.help}" for name, one in definitions.items()),
    )


class _Format(click.Option):
    """An option that takes the name of a report format; targets bring some of their own."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Its line in the help, with the names."""
        record = super().get_help_record(ctx)
        return record and (record[0], record[1].format(formats=", ".join(registry.formats())))


def _format(context: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    """Refuse a format that there is not before the work, not after it."""
    if name is not None and name not in registry.formats():
        raise UsageError(f"There is no format {name!r}. Formats: {', '.join(registry.formats())}.")
    return name


def _verbosity(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    """Note `--quiet` or `--verbose` for this run."""
    context.meta[f"onnxtool.{parameter.name}"] = given
    if _is("quiet") and _is("verbose"):
        raise UsageError("--quiet and --verbose contradict each other.")


def _is(name: str) -> bool:
    """Whether this run is `quiet`, or `verbose`."""
    return bool(click.get_current_context().meta.get(f"onnxtool.{name}"))


def _writable(context: click.Context, parameter: click.Parameter, path: Any) -> Any:
    """Refuse a place that cannot be written before the work, not after it."""
    if path is not None and str(path) != "-":
        check_writable(Path(path))
    return path


_json = click.option(
    "--json", "json_path", metavar="FILE", callback=_writable,
    help="Write the report as JSON; - for standard output.",
)  # fmt: skip

_results = _options(
    _json,
    click.option(
        "-q", "--quiet", is_flag=True, expose_value=False, callback=_verbosity,
        help="Print the report only where it does not pass, and no progress.",
    ),
    click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=_verbosity,
        help="Print on standard error when each stage began, and what it all took.",
    ),
    click.option(
        "--report", "html_path", type=click.Path(path_type=Path), callback=_writable,
        help="Write the report as one HTML page.",
    ),
)  # fmt: skip


@cli.command(cls=_Targeted)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path),
    help="File to write; of several sources, the folder. [default: SOURCE's name + .onnx]",
)  # fmt: skip
@_loading
@_rows
@click.option("--opset", type=int, help="Operator set version. [default: the framework's]")
@click.option("--target", default="ort", show_default=True, help="Deployment target; the model keeps its rules.")
@click.option(
    "--optimize", type=click.Choice(["none", "basic", "full"]), default="none", show_default=True,
    help="Keep the best graph of onnxsim, onnxslim and ONNX Runtime that agrees and is no slower. full: of those "
    "with operators that only ONNX Runtime has, too.",
)  # fmt: skip
@click.option(
    "--precision", type=click.Choice(["fp16", "int8"]),
    help="Lower the precision; int8 is calibrated on --data. Nodes whose error is too large stay in float32.",
)  # fmt: skip
@click.option(
    "--labels", metavar="COLUMN|FILE", help="True label of each row: --precision is then accepted by quality."
)
@click.option(
    "--max-loss", metavar="PERCENT", callback=lambda context, parameter, value: value and _share("--max-loss", value),
    help="Largest loss by --precision: of a score, in labels that flip, or in error. [default: 1%, 1%, 5%]",
)  # fmt: skip
@click.option("--no-verify", is_flag=True, help="Do not compare the result with the source.")
@_expected
@_accept_version
@click.option(
    "--input-dtype", type=click.Choice(["auto", "float32", "float64"]), default="auto", show_default=True,
    help="What numbers go in as. auto: float32 where that moves no row out of tolerance, else float64, or int64 for "
    "whole numbers; column by column. For scikit-learn and boosting.",
)  # fmt: skip
@_accept_rounding
@_accept_ties
@_tolerances
@_results
def convert(
    sources: tuple[str, ...],
    output: Path | None,
    json_path: str | None,
    html_path: Path | None,
    no_verify: bool,
    **arguments: Any,
) -> int:
    """Convert SOURCE to ONNX, and prove that both give the same results.

    Several sources, as models/*.joblib, make one report.

    SOURCE is a scikit-learn, XGBoost, LightGBM or CatBoost file, a PyTorch .pt2 file or package.module:callable, a
    Keras .keras or .h5 file, a TensorFlow SavedModel folder or .tflite file, or an ONNX file to be optimised. It is
    recognised by its content.
    """
    with deferred_interrupts():
        from onnxtool import api

    options = {**_loading_arguments(**arguments), "verify": not no_verify}
    places = _places(sources, output)
    reports, refused = [], False
    with _progress() as on_progress:
        for source, place in places.items():
            try:
                reports.append(api.convert(source, place, **options, on_progress=on_progress))
            except OnnxtoolError as error:
                if len(places) == 1:
                    raise
                refused = True
                _complain(f"{source}: {error}")
    if not reports:
        return BAD_INPUT
    subjects = [subject for report in reports for subject in report.subjects]
    code = _deliver(reports[0].model_copy(update={"subjects": subjects}), json_path, html_path)
    return BAD_INPUT if refused else code


def _places(sources: tuple[str, ...], output: Path | None) -> dict[str, Path | None]:
    """Each source, patterns resolved, with the file that is written of it; None for the usual one."""
    found: list[str] = []
    for source in sources:  # Windows' command line resolves no pattern
        parts = Path(source)
        matches = sorted(map(str, parts.parent.glob(parts.name))) if "*" in parts.name else []
        found += matches or [source]
    if len(found) == 1:
        return {found[0]: output}
    if output is not None and not output.is_dir():
        raise UsageError(
            f"{len(found)} sources are converted into a folder, and {output} is none. Make it, or name one."
        )
    places: dict[str, Path | None] = {source: (output or Path()) / f"{Path(source).stem}.onnx" for source in found}
    if len(set(places.values())) < len(places):
        taken = [str(place) for place in places.values() if list(places.values()).count(place) > 1]
        raise UsageError(f"Several sources would be written to {taken[0]}. Convert them one by one, with -o.")
    return places


def _pairs(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Read `KEY=VALUE`."""
    pairs = dict(value.partition("=")[::2] for value in values)
    if not all(pairs.keys()) or any("=" not in value for value in values):
        raise UsageError(f"{parameter.opts[0]} {values[-1]!r} is not of the form KEY=VALUE.")
    return pairs


def _shapes(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, list[int]]:
    """Read `NAME=SIZE,SIZE`."""
    pairs = _pairs(context, parameter, values)
    return {name: _numbers(f"{parameter.opts[0]} {name}", sizes) for name, sizes in pairs.items()}


_OPTION_HELP = (
    "Option of the providers of MODEL, as device_id=1, or of one, as openvino:device_type=CPU; of the session, as "
    "graph_optimization_level=basic, free_dimension:seq=128 or session.intra_op.allow_spinning=0. Repeatable."
)

_shape_settings: dict[str, Any] = {
    "multiple": True,
    "metavar": "NAME=N,N",
    "callback": _shapes,
    "help": "Sizes of a dynamic dimension, as in seq=128,512, for made-up rows. Repeatable.",
}


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("source")
@_loading
@_rows
@click.option("--labels", metavar="COLUMN|FILE", help="True label of each row: compare the quality too.")
@click.option("--group", metavar="COLUMN", help="With --labels: compare the quality of each group of rows too.")
@_expected
@_accept_version
@_tolerances
@click.option(
    "--provider", default="cpu", show_default=True, metavar="NAME",
    help="Execution provider that runs MODEL: cpu, cuda, tensorrt, or its full name.",
)  # fmt: skip
@click.option(
    "--against-provider", default="cpu", show_default=True, metavar="NAME",
    help="Execution provider that runs SOURCE, if that is an ONNX model.",
)  # fmt: skip
@_accept_rounding
@_accept_ties
@click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", callback=_pairs, help=_OPTION_HELP
)  # fmt: skip
@click.option("--shape", "shapes", **_shape_settings)
@click.option("--explain", is_flag=True, help="Find the first layer, node or step where the models diverge.")
@click.option("--adversarial", is_flag=True, help="Search for rows on which the models diverge.")
@click.option(
    "--budget", default="20s", show_default=True, metavar="SECONDS|ROWS",
    help="With --adversarial: budget of the search, as in 30s or 20000.",
)  # fmt: skip
@click.option(
    "--save-worst", type=click.Path(path_type=Path), metavar="FILE.npz",
    help="With --adversarial: file for the worst rows. [default: MODEL's name + .worst.npz, if they drift]",
)  # fmt: skip
@_results
def verify(json_path: str | None, html_path: Path | None, **arguments: Any) -> int:
    """Compare the ONNX MODEL with its SOURCE: every output of every row.

    SOURCE is what convert takes, or another ONNX model: an earlier conversion, another precision, or the same file on
    another provider.
    """
    with deferred_interrupts():
        from onnxtool import api

    with _progress() as on_progress:
        report = api.verify(**_loading_arguments(**arguments), on_progress=on_progress)
    return _deliver(report, json_path, html_path)


class _Section(click.Option):
    """An option that the help shows under a heading of its own."""

    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class _Sections(click.Command):
    """A command whose help shows its options under their headings, the rest last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            if isinstance(option, click.Option) and (record := option.get_help_record(ctx)):
                sections.setdefault(getattr(option, "section", "Other options"), []).append(record)
        for name, records in sorted(sections.items(), key=lambda entry: entry[0] == "Other options"):
            with formatter.section(name):
                formatter.write_dl(records)


def _section(name: str, **options: dict[str, Any]) -> Callable[[Command], Command]:
    """Options of one section: name of the argument to its settings, `flags` among them where they differ."""
    return _options(
        *(
            click.option(
                *settings.pop("flags", (f"--{argument.replace('_', '-')}",)), argument,
                cls=_Section, section=name, **settings,
            )
            for argument, settings in options.items()
        )
    )  # fmt: skip


def _coverage(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    """Read `PROVIDER=PERCENT`."""
    shares = {name: _share(parameter.opts[0], text) for name, text in _pairs(context, parameter, values).items()}
    if off := [name for name, share in shares.items() if not 0 <= share <= 1]:
        raise UsageError(f"{parameter.opts[0]} {off[0]} is not between 0% and 100%.")
    return shares


def _bounds(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[float, float] | None:
    """Read `TIME`, which is of p99, and `pN=TIME`."""
    bounds: dict[float, float] = {}
    for value in values:
        name, _, time = value.rpartition("=")
        try:
            q = float((name or "p99").removeprefix("p")) / 100
        except ValueError:
            q = 0.0
        if not 0 < q < 1:
            raise UsageError(f"{parameter.opts[0]} {value!r} names no percentile, as in p95=5ms.")
        bounds[q] = _time(parameter.opts[0], time)
    return bounds or None


_SECONDS = click.FloatRange(0, min_open=True)


@cli.command(cls=_Sections)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", type=click.Path(path_type=Path))
@_section(
    "Cells, every combination of these",
    providers={
        "flags": ("--provider",),
        "multiple": True,
        "default": ("cpu",),
        "metavar": "NAME,NAME",
        "help": "cpu, cuda, tensorrt, or an execution provider's full name. Repeatable. [default: cpu]",
    },
    batch={"default": "1", "show_default": True, "metavar": "N,N", "help": "Batch sizes."},
    shapes={"flags": ("--shape",), **_shape_settings},
    threads={"metavar": "N,N", "help": "Threads within an operator. [default: ONNX Runtime's choice]"},
    concurrency={
        "default": "1",
        "show_default": True,
        "metavar": "N,N",
        "help": "Threads that call the one session at the same time.",
    },
)
@_section(
    "Running the cells",
    duration={
        "type": _SECONDS,
        "default": 2.0,
        "show_default": True,
        "help": "Seconds of measuring in each cell.",
    },
    timeout={
        "type": _SECONDS,
        "metavar": "SECONDS",
        "help": "Longest time of a cell or comparison in all, with loading and building an engine. [default: 300, "
        "or 600 with --against, and 10 times --duration or --budget]",
    },
    scenario={
        "type": click.Choice(["single-stream", "multi-stream", "server", "offline"]),
        "default": "single-stream",
        "show_default": True,
        "help": "Arrival of queries, after MLPerf's loadgen.",
    },
    rate={"type": _SECONDS, "metavar": "QPS", "help": "Queries a second that arrive in the server scenario."},
    source={"help": "Source model whose own latency is measured too."},
    io_binding={"is_flag": True, "help": "Keep inputs and outputs on the device."},
    options={
        "flags": ("--option",),
        "multiple": True,
        "metavar": "KEY=VALUE",
        "callback": _pairs,
        "help": _OPTION_HELP,
    },
)
@_section(
    "Gates",
    against={
        "type": click.Path(path_type=Path),
        "metavar": "MODEL",
        "help": "Compare each MODEL with this one, alternately in one process; fail when it is slower.",
    },
    baseline={
        "type": click.Path(path_type=Path),
        "metavar": "REPORT.json",
        "help": "Compare each cell with a saved report of the same machine; fail when it is slower.",
    },
    against_history={
        "type": click.Path(path_type=Path),
        "metavar": "HISTORY",
        "help": "Compare each cell with its recent level in a history of this machine; see `onnxtool history`.",
    },
    effect={
        "default": "5%",
        "show_default": True,
        "metavar": "PERCENT",
        "help": "Smallest slowdown that matters to --against, --baseline and --against-history.",
    },
    budget={
        "type": _SECONDS,
        "default": 60.0,
        "show_default": True,
        "help": "Most seconds of sampling to decide a comparison with --against, or a cell's --latency-bound.",
    },
    latency_bound={
        "multiple": True,
        "metavar": "TIME|pN=TIME",
        "callback": _bounds,
        "help": "Fail when p99, or another percentile, is above it, as in 10ms or p95=5ms. Repeatable.",
    },
    require_coverage={
        "multiple": True,
        "metavar": "PROVIDER=PERCENT",
        "callback": _coverage,
        "help": "Fail when less of the nodes, or of their time, is the provider's own, as in cuda=95%. Repeatable.",
    },
    undecided={
        "type": click.Choice(["fail", "pass"]),
        "default": "fail",
        "show_default": True,
        "help": "Result of a gate that the data do not decide within --budget.",
    },
    strict={"is_flag": True, "help": "Fail when a provider is not usable."},
)
@_section(
    "Several machines",
    executor={
        "type": click.Choice(["local", "ray"]),
        "default": "local",
        "show_default": True,
        "help": "Where cells are measured: here, one after the other, or on all machines of a Ray cluster.",
    },
    ray_address={
        "metavar": "ADDRESS",
        "help": "Address of the cluster, as HOST:6379. [default: what RAY_ADDRESS names or runs here]",
    },
)
@_section(
    "Interrupted sweeps",
    resume={
        "type": click.Path(path_type=Path),
        "metavar": "REPORT.json",
        "help": "Go on where a run with --json REPORT.json was interrupted.",
    },
)
@_loading
@_rows
@_results
def bench(
    *,
    json_path: str | None,
    html_path: Path | None,
    providers: tuple[str, ...],
    batch: str,
    threads: str | None,
    concurrency: str,
    effect: str,
    **arguments: Any,
) -> int:
    """Measure latency and throughput of each MODEL, each combination in a separate process.

    With --json FILE, the report is written after each cell, so that an interrupted run can go on with --resume FILE.
    """
    with deferred_interrupts():
        from onnxtool import api
        from onnxtool.reports import json

    saved: list[Path] = []

    def save(report: Report) -> None:
        if json_path and json_path != "-":
            json.write(report, Path(json_path))
            saved[:] = [Path(json_path)]

    try:
        with _progress() as on_progress:
            report = api.bench(
                **_loading_arguments(**arguments),
                providers=",".join(providers).split(","),
                batches=_numbers("--batch", batch),
                effect=_share("--effect", effect),
                threads=_numbers("--threads", threads) if threads else (None,),
                concurrency=_numbers("--concurrency", concurrency),
                on_progress=on_progress,
                on_report=save,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(*(f"Go on with: --resume {path}" for path in saved)) from None
    return _deliver(report, json_path, html_path)


@cli.command(cls=_Targeted)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("source")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "--target", "--format", "target", default="mlnet", show_default=True,
    help="Deployment target; --format is an older name.",
)  # fmt: skip
@click.option(
    "--provider", "providers", multiple=True, default=("cpu",), metavar="NAME,NAME",
    help="Providers to measure, as for bench. Repeatable. [default: cpu]",
)  # fmt: skip
@click.option("--threads", metavar="N,N", help="Threads within an operator. [default: ONNX Runtime's choice]")
@click.option(
    "--duration", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
    help="Seconds of measuring in each cell.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace a folder that is no bundle, with all that is in it.")
@click.option(
    "--accept", is_flag=True,
    help="Let the target's own software, which must be installed (for mlnet, dotnet), run the bundle first.",
)  # fmt: skip
@_accept_rounding
@_accept_ties
@click.option("--shape", "shapes", **_shape_settings)
@_loading
@_rows
@_accept_version
@_tolerances
@_results
def bundle(
    json_path: str | None,
    html_path: Path | None,
    providers: tuple[str, ...],
    threads: str | None,
    **arguments: Any,
) -> int:
    """Write a folder that a target's software can use: the ONNX MODEL, its proof, and code; for mlnet, C#.

    MODEL must agree with SOURCE and keep the target's rules: convert it with the same --target. A bundle that is
    there already is replaced.
    """
    with deferred_interrupts():
        from onnxtool import api

    with _progress() as on_progress:
        report = api.bundle(
            **_loading_arguments(**arguments),
            providers=",".join(providers).split(","),
            threads=_numbers("--threads", threads) if threads else (None,),
            on_progress=on_progress,
        )
    code = _deliver(report, json_path, html_path)
    click.echo(f"Bundle: {arguments['output']}" if report else "No bundle was written.", err=True)
    return code


@cli.command(cls=_Targeted)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", default="mlnet", show_default=True, help="Deployment target.")
@click.option(
    "--fix", is_flag=True,
    help="Repair what can be repaired; write the model only where it gives the same results as before.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path),
    help="Where --fix writes the repaired model. [default: in MODEL's place]",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the rows that --fix compares.")
@click.option(
    "--format", "format_name", cls=_Format, metavar="NAME", callback=_format,
    help="Print the report as {formats}. [default: for the terminal]",
)  # fmt: skip
@_json
def lint(format_name: str | None, json_path: str | None, **arguments: Any) -> int:
    """Compare the ONNX MODEL with the rules of the software that will load it."""
    with deferred_interrupts():
        from onnxtool import api
        from onnxtool.reports.render import render

    report = api.lint(**arguments)
    if format_name is None:
        return _deliver(report, json_path, None)
    write_exactly(render(report, format_name, registry.formats()), sys.stdout)
    return PASSED if report.passed else FAILED


@cli.command()
@click.argument("path", metavar="REPORT.json", type=click.Path(path_type=Path))
@click.option(
    "--format", "format_name", cls=_Format, metavar="NAME", callback=_format,
    help="One of {formats}. [default: what the ending of --output stands for]",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write. [default: standard output]")
@click.option(
    "--mlflow", "experiment", metavar="EXPERIMENT",
    help="Log a run for each model, with the model itself, to MLflow: to the server that MLFLOW_TRACKING_URI names.",
)  # fmt: skip
@click.option(
    "--tensorboard", "log_folder", metavar="DIR", type=click.Path(path_type=Path),
    help="Add the numbers to TensorBoard's event files in DIR, a folder for each model.",
)  # fmt: skip
def report(
    path: Path, format_name: str | None, output: Path | None, experiment: str | None, log_folder: Path | None
) -> None:
    """Render a saved report in another format, or hand it to a tracker of experiments."""
    from onnxtool.files import write_text
    from onnxtool.reports import json, tensorboard
    from onnxtool.reports.render import format_of, render
    from onnxtool.targets.mlflow import tracking as mlflow

    if output is not None:
        format_name = format_name or format_of(output)
    if format_name is None and experiment is None and log_folder is None:
        raise UsageError(
            "Say what to do with the report: --format NAME, --mlflow EXPERIMENT or --tensorboard DIR."
        )
    saved = json.read(path)
    if format_name is not None:
        text = render(saved, format_name, registry.formats())
        if output is None:
            write_exactly(text, sys.stdout)
        else:
            write_text(output, text)
    if experiment is not None:
        for run in mlflow.log(saved, experiment):
            click.echo(f"MLflow run: {run}", err=True)
    if log_folder is not None:
        for folder in tensorboard.write(saved, log_folder):
            click.echo(f"TensorBoard: {folder}", err=True)


@cli.group(cls=_Group)
def history() -> None:
    """Keep reports over time, and find the commits at which a model changed."""


_history_file = click.option(
    "--history", "path", type=click.Path(path_type=Path), default=Path("onnxtool-history.sqlite"), show_default=True,
    envvar="ONNXTOOL_HISTORY", help="The history: one SQLite file, or for show a folder of JSON reports.",
)  # fmt: skip


@history.command("add")
@click.argument("reports", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="REPORT.json...")
@_history_file
@click.option(
    "--commit", metavar="HASH", help="The commit that was measured. [default: of CI's variables, or git]"
)
@click.option("--branch", help="Its branch. [default: likewise]")
def history_add(reports: tuple[Path, ...], path: Path, commit: str | None, branch: str | None) -> None:
    """Add the numbers of reports, or of pytest-benchmark's and asv's JSON, to a history. Many may add at once."""
    from dataclasses import replace

    from onnxtool.history.runs import commit_here, read_runs
    from onnxtool.history.store import add

    here = commit_here(Path())
    if commit is not None:
        here = replace(here, id=commit, time_s=None)
    if branch is not None:
        here = replace(here, branch=branch)
    runs = [run for report in reports for run in read_runs(report, here)]
    added = add(path, runs)
    known = f", {len(runs) - added} were there already" if added < len(runs) else ""
    click.echo(f"{path}: {added} of {len(runs)} runs added{known}.", err=True)


@history.command("show")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@_history_file
@click.option("--branch", help="The branch. [default: for each model, the one with most runs]")
@click.option(
    "--html", "html_path", type=click.Path(path_type=Path), callback=_writable,
    help="Write all of it as one HTML page, with charts.",
)  # fmt: skip
def history_show(models: tuple[str, ...], path: Path, branch: str | None, html_path: Path | None) -> None:
    """Show how latency, throughput, memory, size, drift and quality of each MODEL changed, and at which commits."""
    with deferred_interrupts():
        from rich.console import Console

        from onnxtool.files import write_text
        from onnxtool.history.store import History
        from onnxtool.history.view import page, view

    past = History(path)
    found = [
        (model, past.branch_of(model) if branch is None else branch, past.series(model, branch))
        for model in models or past.models()
    ]
    past.close()
    if html_path is not None:
        write_text(html_path, page(found, path.name))
        click.echo(f"History: {html_path}", err=True)
        return
    console = Console(highlight=False)
    for entry in found:
        console.print(view(*entry))


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(model: Path, as_json: bool) -> None:
    """Describe an ONNX MODEL: inputs, outputs, opsets, operators, parameters, size."""
    with deferred_interrupts():
        from onnxtool.models.onnx.artifact import OnnxModel
        from onnxtool.reports.summary import print_model

    summary = OnnxModel.read(model).summary()
    if as_json:
        write_exactly(summary.model_dump_json(indent=2) + "\n", sys.stdout)
    else:
        print_model(summary)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> int:
    """Say what is installed, which providers really work, and how to get the rest."""
    with deferred_interrupts():
        from onnxtool.doctor import examine
        from onnxtool.reports.summary import print_diagnosis

    diagnosis = examine()
    if as_json:
        write_exactly(diagnosis.model_dump_json(indent=2) + "\n", sys.stdout)
    else:
        print_diagnosis(diagnosis)
    return PASSED if diagnosis.healthy else FAILED


@cli.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("onnxtool-demo"),
    show_default=True,
    help="Folder to write.",
)
@_json
def demo(out: Path, json_path: str | None) -> int:
    """Convert, verify and measure a reference model of each framework, and write a report."""
    with deferred_interrupts():
        from onnxtool.demo import run_demo

    with _progress() as on_progress:
        report = run_demo(out, on_progress)
    return _deliver(report, json_path, out / "report.html")


def _numbers(option: str, text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"{option} {text!r} is not a list of whole numbers above 0, as in 1,8,64.")
    return [int(part) for part in parts]


def _share(option: str, text: str) -> float:
    """A percentage as a share: the sign may be left out, the unit stays."""
    try:
        return float(text.strip().removesuffix("%")) / 100
    except ValueError:
        raise UsageError(f"{option} {text!r} is no percentage, as in 5%.") from None


def _time(option: str, text: str) -> float:
    """A time in seconds."""
    for unit, scale in (("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)):
        number = text.strip().removesuffix(unit)
        if number != text.strip():
            try:
                seconds = float(number) * scale
            except ValueError:
                break
            if 0 < seconds < float("inf"):
                return seconds
    raise UsageError(f"{option} {text!r} is no time, as in 10ms or 2s.")


def _deliver(report: Report, json_path: str | None, html_path: Path | None) -> int:
    """Print the report and write the requested files; exit 0 if its gates passed, else 1."""
    from onnxtool.files import write_text
    from onnxtool.reports import github
    from onnxtool.reports.render import render

    if json_path == "-":
        write_exactly(render(report, "json"), sys.stdout)
    else:
        from rich.console import Console

        from onnxtool.reports.terminal import view

        # A pipe has no width: it gets that of a report's text, unless COLUMNS says otherwise.
        console = Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 100)
        if not (report.passed and _is("quiet")):
            with github.commands_stopped(os.environ, sys.stdout):
                console.print(view(report, console.width))
        if json_path:
            write_text(Path(json_path), render(report, "json"))
    github.publish(report, os.environ, sys.stderr)
    if html_path:
        write_text(html_path, render(report, "html"))
        click.echo(f"Report: {html_path}", err=True)
    return PASSED if report.passed else FAILED


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A progress bar on a terminal, nothing elsewhere; a line for each stage with --verbose."""
    if _is("verbose"):
        with _stages() as on_progress:
            yield on_progress
        return
    if os.environ.get("CI") or _is("quiet") or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Starting", total=None)
        yield lambda stage, done, total: bar.update(
            task, description=stage, completed=done, total=total or None, refresh=True
        )


@contextmanager
def _stages() -> Iterator[Progress]:
    """A line when each stage begins, and at the end the time of processors: this process's, and its workers'."""
    import psutil

    started = psutil.Process().create_time()
    last = ""

    def show(stage: str, done: int = 0, total: int = 0) -> None:
        nonlocal last
        if stage != last:
            last = stage
            click.echo(f"{time.time() - started:8.2f} s  {stage}", err=True)

    show("Imports are done")
    try:
        yield show
    finally:
        show("Done")
        own, children = sum(os.times()[:2]), sum(os.times()[2:4])
        click.echo(f"Processor time: {own:.2f} s in this process, {children:.2f} s in its workers.", err=True)
