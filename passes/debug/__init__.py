"""Finding out what a pipeline did: dumps, comparisons, bisection, reduction."""
