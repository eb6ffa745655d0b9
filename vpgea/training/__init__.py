"""The optimiser steps on a selected set: data, students and teachers, ranks, checkpoints, guards."""
