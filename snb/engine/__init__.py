"""The engine, from prompt ids to text.

A request's way: `loop` queues its prompt ids as a `generation` and gives it a row; `slots` runs the layers of
`decoder` over the rows, along one of the `paths` (`fused` has its own `kernels`; `rowwise` multiplies weights
of 8 bits); `sampling` draws each next token, among those that `script` allows; `detokenizer` turns tokens
into text, which `stops` cuts; the caller iterates over the `generation`.

Nothing here knows of Cog, of personas or of files of weights.
"""
