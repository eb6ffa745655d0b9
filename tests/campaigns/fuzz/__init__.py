"""Odd input, made at random, against everything that reads what vpgea did not write itself.

    python -m tests.campaigns.fuzz --inputs 100000 --seed 1 [--only NAME]

Every input has to be accepted or refused with an error of vpgea's own. Any other exception, a crash, more than the
allowed memory and a hang are findings.
"""
