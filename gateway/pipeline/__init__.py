"""One request from body to record: judge the prompt, ask the model, judge the answer, record."""
