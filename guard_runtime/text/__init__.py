"""Text made comparable: normalised, decoded, cut into windows."""
