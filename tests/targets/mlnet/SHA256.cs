// .NET Core 3.1 knows OpenSSL up to 1.1, and today's systems have 3: this takes the place of its SHA256.
using System.IO;
using System.Runtime.InteropServices;

namespace System.Security.Cryptography
{
    public sealed class SHA256 : IDisposable
    {
        public static SHA256 Create()
        {
            return new SHA256();
        }

        public byte[] ComputeHash(Stream stream)
        {
            using (var content = new MemoryStream())
            {
                stream.CopyTo(content);
                var hash = new byte[32];
                Hash(content.ToArray(), new UIntPtr((ulong)content.Length), hash);
                return hash;
            }
        }

        public void Dispose()
        {
        }

        [DllImport("libcrypto.so.3", EntryPoint = "SHA256")]
        private static extern IntPtr Hash(byte[] data, UIntPtr size, byte[] hash);
    }
}
