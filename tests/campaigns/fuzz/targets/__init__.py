"""The targets: each module makes its inputs and tries them, as `probe(folder)`."""
