"""Questions with reference answers: read, checked, fingerprinted, divided."""
