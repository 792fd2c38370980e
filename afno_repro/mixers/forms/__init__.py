"""The forms in which AFNO's layer is computed, and the rule that chooses between them; all compute the same."""
