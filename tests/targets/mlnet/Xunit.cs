// xunit's names for what a bundle's tests use, where there is no dotnet SDK to fetch xunit itself, and a runner for them.
using System;
using System.Collections;
using System.Linq;
using System.Reflection;

namespace Xunit
{
    [AttributeUsage(AttributeTargets.Method)]
    public sealed class FactAttribute : Attribute
    {
    }

    public static class Assert
    {
        public static void Empty(IEnumerable items)
        {
            object[] found = items.Cast<object>().ToArray();
            if (found.Length > 0)
            {
                throw new Exception("Not empty: " + string.Join("; ", found));
            }
        }

        public static void NotEmpty(IEnumerable items)
        {
            if (!items.Cast<object>().Any())
            {
                throw new Exception("Empty.");
            }
        }
    }

    public static class Runner
    {
        public static int Main()
        {
            int failed = 0, passed = 0;
            MethodInfo[] facts = Assembly.GetExecutingAssembly().GetTypes()
                .SelectMany(type => type.GetMethods())
                .Where(method => method.GetCustomAttribute<FactAttribute>() != null)
                .ToArray();
            foreach (MethodInfo fact in facts)
            {
                try
                {
                    fact.Invoke(Activator.CreateInstance(fact.DeclaringType), null);
                    passed++;
                }
                catch (TargetInvocationException error)
                {
                    Console.Error.WriteLine(fact.Name + ": " + error.InnerException.Message);
                    failed++;
                }
            }

            Console.WriteLine(passed + " passed, " + failed + " failed");
            return failed == 0 && passed > 0 ? 0 : 1;
        }
    }
}
