"""vpgea: make a reasoning language model short and right.

The library behind the `vpgea` command. Importing this package imports no torch.
"""

__version__ = "0.1.0"
