"""Weights, from a hub or a folder to tensors on the device.

The path of a boot, in order:

1. `loader`: what the service calls; chooses the precision, and returns the model and its tokenizer.
2. `fetch`: the folders of base and adapter, downloaded if need be and verified.
3. `merge`: streams the checkpoint to the device, one tensor at a time.
4. `adapter`: adds the LoRA to each tensor.
5. `quantization`: quantises each merged weight.

Besides: `prepared` (weights that were merged and quantised before, which `loader` takes instead), `hub`
(downloads and their retries), `lock` (what a complete download holds), `checkpoint` (whether a folder can be
served), `document` (JSON, read within bounds).
"""
