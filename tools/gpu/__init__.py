"""Of the kernels for devices: what they take once compiled, and a benchmark for a machine with a GPU."""
