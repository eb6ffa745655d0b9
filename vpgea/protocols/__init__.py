"""Benchmark protocols as data: how a benchmark is asked, sampled and graded, and what others have measured by them."""
