"""From rows to weights: the model, its losses, its stages."""
