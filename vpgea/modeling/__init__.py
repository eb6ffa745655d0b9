"""Models and their files: loading, fingerprints, the decoder and the head, packed sequences, log-probabilities."""
