"""Which weights a server serves, and how that is made sure of."""
