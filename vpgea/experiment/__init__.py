"""Experiments: many loops that differ in what is named, at equal cost, compared on questions that none has seen."""
