"""A philosopher on an endpoint: prompt, weights, merge, engine and what `predict.py` calls."""
