"""Steps of scikit-learn pipelines that come from other libraries, a module a library."""
