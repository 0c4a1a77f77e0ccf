// Scores ONNX models in ML.NET: `scorer JOBS.json RESULTS.json`. ../score.py says what a job and a result are.

using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.ML;
using Microsoft.ML.Data;

var options = new JsonSerializerOptions
{
    NumberHandling = System.Text.Json.Serialization.JsonNumberHandling.AllowNamedFloatingPointLiterals,
};
var results = new JsonArray();
foreach (JsonNode job in JsonNode.Parse(File.ReadAllText(args[0])).AsArray())
{
    results.Add(Scorer.Score(job, options));
}

File.WriteAllText(args[1], results.ToJsonString(options));

internal static class Scorer
{
    public static JsonObject Score(JsonNode job, JsonSerializerOptions options)
    {
        string stage = "load";
        try
        {
            var context = new MLContext(1);
            var table = new Table(job["columns"].AsObject());
            string model = (string)job["model"];
            var shapes = job["shapes"]?.AsObject().ToDictionary(
                entry => entry.Key, entry => entry.Value.AsArray().Select(size => (int)size).ToArray());
            IEstimator<ITransformer> pipeline = shapes == null
                ? context.Transforms.ApplyOnnxModel(model)
                : context.Transforms.ApplyOnnxModel(model, shapes);
            if (job["outputs"] is JsonArray names)
            {
                string[] inputs = table.Schema.Select(column => column.Name).ToArray();
                pipeline = context.Transforms.ApplyOnnxModel(names.Select(name => (string)name).ToArray(), inputs, model);
            }

            stage = "fit";
            ITransformer fitted = pipeline.Fit(table);
            if (job["zip"] != null && (bool)job["zip"])
            {
                using var zip = new MemoryStream();
                context.Model.Save(fitted, table.Schema, zip);
                zip.Position = 0;
                fitted = context.Model.Load(zip, out _);
            }

            IDataView scored = fitted.Transform(table);
            stage = "score";
            var columns = new JsonObject();
            foreach (DataViewSchema.Column column in scored.Schema.Where(column => !column.IsHidden && column.Index >= table.Schema.Count))
            {
                columns[column.Name] = new JsonObject
                {
                    ["type"] = column.Type.ToString(),
                    ["values"] = Values(scored, column, options),
                    ["slots"] = Slots(column),
                };
            }

            return new JsonObject { ["columns"] = columns };
        }
        catch (Exception error)
        {
            while (error.InnerException != null)
            {
                error = error.InnerException;
            }

            return new JsonObject
            {
                ["error"] = new JsonObject { ["stage"] = stage, ["type"] = error.GetType().FullName, ["message"] = error.Message },
            };
        }
    }

    private static JsonArray Slots(DataViewSchema.Column column)
    {
        if (!column.HasSlotNames())
        {
            return null;
        }

        VBuffer<ReadOnlyMemory<char>> names = default;
        column.GetSlotNames(ref names);
        return new JsonArray(names.DenseValues().Select(name => (JsonNode)name.ToString()).ToArray());
    }

    private static JsonArray Values(IDataView view, DataViewSchema.Column column, JsonSerializerOptions options)
    {
        bool isVector = column.Type is VectorDataViewType;
        Type type = isVector ? ((VectorDataViewType)column.Type).ItemType.RawType : column.Type.RawType;
        string method = isVector ? nameof(Vectors) : nameof(Scalars);
        try
        {
            return (JsonArray)typeof(Scorer)
                .GetMethod(method, System.Reflection.BindingFlags.NonPublic | System.Reflection.BindingFlags.Static)
                .MakeGenericMethod(type).Invoke(null, [view, column, options]);
        }
        catch (System.Reflection.TargetInvocationException error)
        {
            throw error.InnerException;
        }
    }

    private static JsonArray Vectors<T>(IDataView view, DataViewSchema.Column column, JsonSerializerOptions options)
    {
        var rows = new JsonArray();
        using DataViewRowCursor cursor = view.GetRowCursor([column]);
        ValueGetter<VBuffer<T>> getter = cursor.GetGetter<VBuffer<T>>(column);
        VBuffer<T> row = default;
        while (cursor.MoveNext())
        {
            getter(ref row);
            rows.Add(new JsonArray(row.DenseValues().Select(item => Node(item, options)).ToArray()));
        }

        return rows;
    }

    private static JsonArray Scalars<T>(IDataView view, DataViewSchema.Column column, JsonSerializerOptions options)
    {
        var rows = new JsonArray();
        using DataViewRowCursor cursor = view.GetRowCursor([column]);
        ValueGetter<T> getter = cursor.GetGetter<T>(column);
        T row = default;
        while (cursor.MoveNext())
        {
            getter(ref row);
            rows.Add(row is System.Collections.IEnumerable items and not string
                ? new JsonArray(items.Cast<object>().Select(item => Node(item, options)).ToArray())
                : Node(row, options));
        }

        return rows;
    }

    private static JsonNode Node<T>(T item, JsonSerializerOptions options) =>
        item is ReadOnlyMemory<char> text ? text.ToString() : JsonSerializer.SerializeToNode(item, options);
}

/// <summary>A table whose columns have any type: LoadFromEnumerable wants a class for each.</summary>
internal sealed class Table : IDataView
{
    private static readonly JsonSerializerOptions Json = new()
    {
        NumberHandling = System.Text.Json.Serialization.JsonNumberHandling.AllowNamedFloatingPointLiterals,
    };

    private static readonly Dictionary<string, PrimitiveDataViewType> Types = new()
    {
        ["bool"] = BooleanDataViewType.Instance, ["string"] = TextDataViewType.Instance,
        ["int8"] = NumberDataViewType.SByte, ["int16"] = NumberDataViewType.Int16,
        ["int32"] = NumberDataViewType.Int32, ["int64"] = NumberDataViewType.Int64,
        ["uint8"] = NumberDataViewType.Byte, ["uint16"] = NumberDataViewType.UInt16,
        ["uint32"] = NumberDataViewType.UInt32, ["uint64"] = NumberDataViewType.UInt64,
        ["float32"] = NumberDataViewType.Single, ["float64"] = NumberDataViewType.Double,
    };

    private readonly List<object[]> columns = [];

    public Table(JsonObject table)
    {
        var builder = new DataViewSchema.Builder();
        foreach ((string name, JsonNode column) in table)
        {
            PrimitiveDataViewType type = Types[(string)column["dtype"]];
            var values = column["values"].AsArray();
            bool isVector = values.Count > 0 && values[0] is JsonArray;
            object[] rows = values.Select(value => isVector ? Vector(type, Flat(value)) : Item(type, value)).ToArray();
            int[] sizes = isVector ? values.Select(value => Flat(value).Count()).Distinct().ToArray() : [];
            builder.AddColumn(name, isVector ? new VectorDataViewType(type, sizes.Length == 1 ? sizes[0] : 0) : type);
            this.columns.Add(rows);
        }

        this.Schema = builder.ToSchema();
    }

    public bool CanShuffle => false;

    public DataViewSchema Schema { get; }

    public long? GetRowCount() => this.columns.Count == 0 ? 0 : this.columns[0].Length;

    public DataViewRowCursor GetRowCursor(IEnumerable<DataViewSchema.Column> needed, Random rand = null) => new Cursor(this);

    public DataViewRowCursor[] GetRowCursorSet(IEnumerable<DataViewSchema.Column> needed, int n, Random rand = null) =>
        [this.GetRowCursor(needed, rand)];

    private static IEnumerable<JsonNode> Flat(JsonNode value) =>
        value is JsonArray items ? items.SelectMany(Flat) : [value];

    private static object Item(PrimitiveDataViewType type, JsonNode value) =>
        type is TextDataViewType ? ((string)value).AsMemory() : value.Deserialize(type.RawType, Json);

    private static object Vector(PrimitiveDataViewType type, IEnumerable<JsonNode> values)
    {
        object[] items = values.Select(value => Item(type, value)).ToArray();
        Array typed = Array.CreateInstance(type.RawType, items.Length);
        items.CopyTo(typed, 0);
        return Activator.CreateInstance(typeof(VBuffer<>).MakeGenericType(type.RawType), items.Length, typed, null);
    }

    private sealed class Cursor(Table table) : DataViewRowCursor
    {
        private long position = -1;

        public override long Position => this.position;

        public override long Batch => 0;

        public override DataViewSchema Schema => table.Schema;

        public override bool MoveNext() => ++this.position < table.GetRowCount();

        public override bool IsColumnActive(DataViewSchema.Column column) => true;

        public override ValueGetter<DataViewRowId> GetIdGetter() =>
            (ref DataViewRowId value) => value = new DataViewRowId((ulong)this.position, 0);

        public override ValueGetter<T> GetGetter<T>(DataViewSchema.Column column) =>
            (ref T value) => value = (T)table.columns[column.Index][this.position];
    }
}
