"""ML.NET's rules for an ONNX model: the table that the linter checks, the docs show and the tests settle.

Sources are dotnet/machinelearning, `src/Microsoft.ML.OnnxTransformer/` (OnnxTransform.cs, OnnxUtils.cs,
OnnxTypeParser.cs), and ML.NET itself: `tests/targets/mlnet/` has its answer for every rule.
"""

from __future__ import annotations

from typing import TypeAlias

from packaging.version import Version

from onnxtool.converters.graph.repairs import ML
from onnxtool.targets.lint import Rule, RuleSet
from onnxtool.targets.mlnet import checks as check
from onnxtool.targets.mlnet.releases import Deployment

MlnetRule: TypeAlias = Rule[Deployment]


def rules_of(deployment: Deployment) -> RuleSet[Deployment]:
    """The rules that a release has."""
    version = Version(deployment.release.version)
    rules = [
        rule
        for rule in RULES
        if not (rule.since and version < Version(rule.since))
        and not (rule.before and version >= Version(rule.before))
    ]
    return RuleSet(rules, deployment, deployment.release.version)


# -- The table ------------------------------------------------------------------------------------------------

RULES: tuple[MlnetRule, ...] = (
    Rule(
        "MLNET001", "warning",
        "The model with its weights is below 2 GB.",
        "Larger models have external files, which ML.NET's own files, streams and bytes cannot contain.",
        "Make the model smaller, or always load it from its path.",
        check.too_large,
    ),
    Rule(
        "MLNET002", "warning",
        "The model is one file.",
        "From its path it loads; a pipeline that ML.NET saved loads no more, since the weights are left behind.",
        "Store the weights in the model's file.",
        check.external, check.inline,
    ),
    Rule(
        "MLNET003", "error",
        f"Messages lie at most {check.NESTING} deep in the file: two If or Loop in one another are too many.",
        "Loading throws InvalidProtocolBufferException.",
        "Use a newer ML.NET, or export the model without nested control flow.",
        check.too_deep,
        before="1.6.0",
    ),
    Rule(
        "MLNET004", "error",
        "Initializers are of float32, float64, string, bool or an integer type of 8 to 64 bits.",
        "Loading looks at every top-level initializer, behind float32 inputs too; Constant nodes it leaves alone.",
        "Write such weights as Constant nodes, or keep them in float32.",
        check.foreign_weights, check.weights_to_constants,
    ),
    Rule(
        "MLNET005", "error",
        "Inputs and outputs are of float32, float64, string, bool or an integer type of 8 to 64 bits.",
        "Loading throws, for outputs that are not used too.",
        "Cast at the border: float32 for float16, bfloat16 and float8, int64 for smaller integers.",
        check.foreign_dtype, check.recast_foreign,
    ),
    Rule(
        "MLNET006", "note",
        "Inputs are of float32, int64 or string.",
        "Others need a column of exactly that type, as float64 needs double: ML.NET casts nothing.",
        "Use the type that belongs to it in C#, or cast at the border.",
        check.other_inputs,
    ),
    Rule(
        "MLNET007", "error",
        "Inputs are tensors; outputs are tensors, or maps, or sequences of types that ML.NET has, with a shape.",
        "Loading throws for optional and sparse types and for sequences without a shape, fitting for sequences and "
        "maps that go in, reading a row for sequences of tensors.",
        "Export the model with plain tensors at its border.",
        check.no_tensor,
    ),
    Rule(
        "MLNET008", "warning",
        "No output is a map: ZipMap is left out.",
        "A map arrives as an OnnxSequenceType, which PredictionEngine reads and no trainer or evaluator does.",
        "Convert with zipmap=False; the class names stay as slot names.",
        check.maps, check.maps_to_tensors,
    ),
    Rule(
        "MLNET009", "error",
        "Every input and output has a shape.",
        "Loading throws NullReferenceException.",
        "Declare the shape, with names for the dimensions that vary.",
        check.nameless_shape, check.infer_shapes,
    ),
    Rule(
        "MLNET010", "error",
        "No output is a scalar of rank 0.",
        "The model loads, and reading a row throws (machinelearning#7225).",
        "Give it the shape [1].",
        check.scalar_outputs, check.unsqueeze_outputs,
    ),
    Rule(
        "MLNET011", "warning",
        "An input of one number a row is of shape [batch, 1].",
        "A scalar column, which a plain C# property is, always feeds [1, 1], which other ranks but 0 refuse.",
        "Give it the shape [batch, 1], or mark the property [VectorType(1)].",
        check.narrow_inputs, check.widen_inputs,
    ),
    Rule(
        "MLNET012", "error",
        "No dimension is empty.",
        "Loading throws ArgumentOutOfRangeException (machinelearning#4646).",
        "Name the dimension, as in batch.",
        check.empty_dims, check.name_dims,
        before="1.5.0",
    ),
    Rule(
        "MLNET013", "note",
        "Every dimension has a size above 0 or a name.",
        "ML.NET takes it as unknown, so that equal dimensions are not known to be equal.",
        "Name the dimension, as in batch.",
        check.nameless_dims, check.name_dims,
    ),
    Rule(
        "MLNET014", "error",
        "No dimension of an input has the size 0.",
        "ML.NET feeds one row where ONNX Runtime expects none.",
        "Name the dimension, as in batch.",
        check.zero_dims,
    ),
    Rule(
        "MLNET015", "error",
        "No dimension, and no number of elements a row, is above 2147483647.",
        "Loading or fitting throws: ML.NET counts in 32 bits.",
        "Export the model with smaller dimensions.",
        check.huge_dims,
    ),
    Rule(
        "MLNET016", "error",
        "No dimension of an input is unknown, besides the first.",
        "ML.NET takes it for 1, and feeding any other length throws.",
        "Fix the size when exporting, or give ApplyOnnxModel a shape dictionary.",
        check.any_unknown_dim,
        before="2.0.0",
    ),
    Rule(
        "MLNET017", "error",
        "At most one dimension of an input is unknown, besides the first.",
        "Fitting throws ArgumentOutOfRangeException.",
        "Fix the sizes when exporting, or give ApplyOnnxModel a shape dictionary.",
        check.several_unknown_dims,
        since="2.0.0",
    ),
    Rule(
        "MLNET018", "warning",
        "No dimension of an input is unknown, besides the first.",
        "With one that is, the input takes vector columns of any size: [VectorType] without a size. With a size, "
        "fitting works and reading the first row throws.",
        "Fix the size when exporting, or give ApplyOnnxModel a shape dictionary.",
        check.one_unknown_dim,
        since="2.0.0",
    ),
    Rule(
        "MLNET019", "warning",
        "The first dimension of an input varies, or is 1.",
        "ML.NET runs the model once a row: the column must hold all of its rows in one flat vector.",
        "Export the model with a dynamic batch.",
        check.fixed_batch,
    ),
    Rule(
        "MLNET020", "note",
        "No dimension of an output is unknown, besides the first.",
        "Its column is a vector of unknown size, which trainers and evaluators refuse.",
        "Declare the size, or give ApplyOnnxModel a shape dictionary.",
        check.unknown_output_dims,
    ),
    Rule(
        "MLNET021", "error",
        "Output names differ, and are not empty, once ML.NET has taken .output out of those that end in it.",
        "One column hides the other, or fitting throws.",
        "Rename the outputs.",
        check.lost_columns,
    ),
    Rule(
        "MLNET022", "warning",
        "No output's name ends in .output.",
        "ML.NET takes it out: the column has another name than the output, and hides an input of that name.",
        "Rename the output.",
        check.stripped_names, check.strip_names,
    ),
    Rule(
        "MLNET023", "error",
        "No input that is read has a name like mlnet.NAME.unusedInput.",
        "ML.NET hides such inputs and feeds nothing.",
        "Rename the input.",
        check.hidden_inputs,
    ),
    Rule(
        "MLNET024", "note",
        "No output has a name like mlnet.NAME.unusedOutput.",
        "ML.NET hides such outputs.",
        "Rename the output.",
        check.hidden_outputs,
    ),
    Rule(
        "MLNET025", "warning",
        "Every input is read.",
        "ML.NET still requires a column for the input, unless inputColumnNames leaves it out.",
        "Leave the input out.",
        check.unread_inputs, check.remove_unread_inputs,
    ),
    Rule(
        "MLNET026", "warning",
        "An output has as many slot names as elements a row.",
        "ML.NET takes any number, and ignores the names where it is another.",
        "Name every element in the node mlnet.COLUMN.SlotNames, attribute keys_strings.",
        check.wrong_slots,
    ),
    Rule(
        "MLNET027", "error",
        "The opset is within that of the release's ONNX Runtime.",
        "Loading throws; a newer native package of the project's own raises the limit.",
        "Convert with a lower --opset, or name a newer --mlnet-version.",
        check.high_opset, check.lower_opset,
    ),
    Rule(
        "MLNET028", "error",
        f"The opset of {ML} is within that of the release's ONNX Runtime.",
        "Loading throws.",
        "Name a newer --mlnet-version: the operators in it are not in the older one.",
        check.high_ml_opset, check.lower_ml_opset,
    ),
    Rule(
        "MLNET029", "error",
        "The IR version is within that of the release's ONNX Runtime.",
        "Loading throws.",
        "Write the model with a lower ir_version.",
        check.high_ir, check.lower_ir,
    ),
    Rule(
        "MLNET030", "error",
        "Every operator is ONNX's, ONNX Runtime's, or a function within the model.",
        "Loading throws, unless CreateSessionOptions registers a library that has the operator.",
        "Export the model without custom operators.",
        check.foreign_operators,
    ),
    Rule(
        "MLNET031", "warning",
        "Outputs are of float32, int64 or string.",
        "ML.NET's trainers and evaluators take float32, and cast nothing.",
        "Cast at the border.",
        check.other_outputs, check.recast_outputs,
    ),
    Rule(
        "MLNET032", "warning",
        "No output is a sequence of tensors.",
        "Reading its column throws.",
        "Leave it out, or name the others in outputColumnNames.",
        check.sequences,
    ),
    Rule(
        "MLNET033", "warning",
        "An output has the shape that it declares.",
        "ML.NET takes the declared shape for true: the column's type has it, its values do not, and trainers throw.",
        "Declare the shape that the model computes.",
        check.other_shapes,
    ),
    Rule(
        "MLNET034", "error",
        "An output has the type that it declares.",
        "Loading throws.",
        "Declare the type that the model computes.",
        check.other_types,
    ),
    Rule(
        "MLNET035", "warning",
        "No StringNormalizer needs a locale.",
        "Loading throws on a machine that lacks the locale, as containers do.",
        'Give it the locale "C.UTF-8" where letters of ASCII are all that changes case, or install the locale.',
        check.locales,
    ),
    Rule(
        "MLNET036", "warning",
        "The opset is 7 or higher.",
        "ONNX Runtime lacks some of the older operators, and loading throws for these.",
        "Convert the model with a higher --opset.",
        check.low_opset,
    ),
    Rule(
        "MLNET037", "warning",
        "The default domain, which is written empty or as ai.onnx, is imported with one version.",
        "ONNX Runtime takes the last one, whichever version the operators were written in.",
        "Write the domain once.",
        check.mixed_opsets,
    ),
    Rule(
        "MLNET038", "error",
        "The model says its IR version.",
        "Loading throws.",
        "Write the model with an ir_version.",
        check.no_ir,
    ),
    Rule(
        "MLNET039", "error",
        "No two inputs, and no two initializers, have one name.",
        "Loading throws, or takes the last.",
        "Rename them.",
        check.ambiguous_names,
    ),
    Rule(
        "MLNET040", "warning",
        "ML.NET feeds an input, and makes a column of an output.",
        "A pipeline without cannot be saved.",
        "Rename the inputs and outputs that ML.NET hides.",
        check.nothing_to_see,
    ),
    Rule(
        "MLNET041", "error",
        "The opset of com.microsoft is 1.",
        "Loading throws.",
        "Write the domain with version 1.",
        check.high_contrib_opset,
    ),
)  # fmt: skip
"""In the order in which they are repaired: weights, types and shapes before what rests on them."""
