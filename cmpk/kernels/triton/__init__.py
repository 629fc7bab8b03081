"""Kernels for CUDA devices, in Triton. Nothing imports this where a model is loaded onto the CPU."""
