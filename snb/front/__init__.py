"""The way in on every host with a public address: checks the API key before Cog's server sees a request.

Replicate asks for its own token and runs Cog's server by itself; every other host runs `python -m snb.front`.
"""
