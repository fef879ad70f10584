"""Where answers come from: providers, litellm, the demo model, a script."""
