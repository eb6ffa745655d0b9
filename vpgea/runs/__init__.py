"""Folders of runs: phases, parts, manifests, rounds, and what is known of them."""
