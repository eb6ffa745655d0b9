"""The loss of the distillation step as pure functions on flattened token tensors.

Every function returns per-token terms (T,) and knows nothing of batches: a trainer sums them over however many
micro-batches and multiplies by the constants in `Normalisers`, so value and gradient do not depend on the cut.
"""
