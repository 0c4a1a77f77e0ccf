// What ML.NET has had since 4.0 and the 1.5 of these tests has not: see OnnxSessionOptions.cs of dotnet/machinelearning,
// whose names and types these are. The 1.5 always runs ONNX Runtime's defaults, so anything else is refused.
using System;
using Microsoft.ML.OnnxRuntime;
using Microsoft.ML.Runtime;

namespace Microsoft.ML.Transforms.Onnx
{
    public static class OnnxSessionOptionsExtensions
    {
        public static void SetOnnxSessionOption(this IHostEnvironment env, OnnxSessionOptions onnxSessionOptions)
        {
            if (onnxSessionOptions.CreateSessionOptions != null)
            {
                onnxSessionOptions.CreateSessionOptions();
            }

            if (onnxSessionOptions.IntraOpNumThreads != 0)
            {
                throw new NotSupportedException($"ML.NET 1.5 cannot run {onnxSessionOptions.IntraOpNumThreads} threads.");
            }
        }
    }

    public sealed class OnnxSessionOptions
    {
        public delegate SessionOptions CreateOnnxSessionOptions();

        public int IntraOpNumThreads { get; set; }

        public CreateOnnxSessionOptions CreateSessionOptions { get; set; }
    }
}
