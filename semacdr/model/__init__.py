"""The model: its parts, presets, histories, ranking, and the checkpoint that needs no training code."""
