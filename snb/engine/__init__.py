"""The engine, from prompt ids to text.

How a request passes through: `loop` queues its prompt ids as a `generation` and gives it a row; `slots` runs
the layers of `decoder` over the rows, along one of the `paths` (`fused` has its own `kernels`; `rowwise`
multiplies 8-bit weights); `sampling` draws each next token, among those that `script` allows; `detokenizer`
turns tokens into text, which `stops` cuts; the caller iterates over the `generation`.

Nothing here knows of Cog, of personas or of weight files.
"""
