"""Rounds as jobs of a SLURM cluster, which is the only scheduler here: scripts, their chain, and how it stands."""
