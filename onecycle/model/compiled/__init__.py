"""What numba compiles for the CPU that it runs on: the inner loops of a training step.

Slow to import, and the first call on a machine compiles for seconds; what was made is kept on disk.
"""
