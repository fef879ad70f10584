"""Chat completions and legacy completions: answers made of choices."""
