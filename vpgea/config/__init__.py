"""The documented model of a run: its keys, where their values come from, and what can be wrong with them."""
