# %% [markdown]
# # 4. 2:4 against unstructured sparsity on one real layer
#
# The layer: 128 x 64 weights of the trained `digits-mlp`, before any pruning. Both patterns keep half
# of it. Replace every `...`.

# %%
import numpy as np

import sparqsim

network = sparqsim.load("digits-mlp", dense=True)
w = network.subject.weights["fc1"].astype(np.float64)

# %% [markdown]
# ## The larger half
#
# Unstructured: of all weights those with the largest magnitude stay, wherever they are.

# %% task
threshold = np.median(np.abs(w))  # solution
free = np.abs(w) > threshold  # solution

# %% check
assert free.shape == w.shape and free.mean() == 0.5
assert np.abs(w[free]).min() > np.abs(w[~free]).max()

# %% [markdown]
# ## Two of four
#
# Of each four neighbours along the inputs (a row of `w`) the two with the largest magnitude stay.

# %% task
groups = np.abs(w).reshape(128, 16, 4)
order = np.argsort(np.argsort(groups, axis=2), axis=2)  # solution
pairs = (order >= 2).reshape(w.shape)  # solution

# %% check
from sparqsim.workloads.prune import NM, magnitude, mask

assert (pairs.reshape(128, 16, 4).sum(axis=2) == 2).all(), "two of each four"
assert np.array_equal(pairs, mask(magnitude(w), NM(n=2, m=4)))

# %% [markdown]
# ## What each keeps
#
# The share of the sum of squares. Why can 2:4 never keep more?


# %% task
def kept(stays):
    return (w[stays] ** 2).sum() / (w**2).sum()  # solution


# %% check
assert kept(np.ones_like(free)) == 1 and 0.5 < kept(pairs) < kept(free) < 1
print(f"unstructured {kept(free):.1%}, 2:4 {kept(pairs):.1%}")

# %% [markdown]
# ## What each takes
#
# Bits for one weight of the dense matrix, with values of 8 bits: 2:4 stores each kept value and its
# place among four; an unstructured tensor stores a bit for each place (a bitmap) and the kept values.

# %% task
bits_2of4 = (2 * 8 + 2 * 2) / 4  # solution
bits_bitmap = 1 + 8 / 2  # solution

# %% check
from sparqsim.workloads.encodings import Bitmap, NMSparse

codes = (pairs * 100).astype(np.uint8)
assert bits_2of4 == NMSparse.encode(codes).bits / codes.size
assert abs(bits_bitmap - Bitmap.encode((free * 100).astype(np.uint8)).bits / codes.size) < 0.05
print(f"2:4 {bits_2of4} bits, bitmap {bits_bitmap} bits")

# %% [markdown]
# ## What the network still gets right
#
# `compress` prunes every layer of the network by a recipe (`2:4`, `unstructured50`), without
# retraining, and runs it on test images.

# %% task
from sparqsim.workloads.compress import compress


def accuracy(recipe):
    _, report, _ = compress(network.subject, sparqsim.recipe(recipe))
    return report.compressed["accuracy"]  # solution


found = {recipe: accuracy(recipe) for recipe in ("2:4", "unstructured50")}  # solution

# %% check
assert 0.8 < found["2:4"] < found["unstructured50"] < 0.978
print(found)

# %% [markdown]
# ## What each gains
#
# A sparse tensor core doubles its rate for 2:4, but DRAM, start and outputs stay. EIE and SNAP take
# any pattern. Run a product of n x n x n on `sparse-tensor-core` with `fp16` and with `2:4`, without
# verification, and find the speed-up of each n.


# %% task
def speedup(n):
    dense, sparse = (
        sparqsim.run("sparse-tensor-core", f"gemm:{n}x{n}x{n}", recipe, verify=False).seconds
        for recipe in ("fp16", "2:4")
    )
    return dense / sparse  # solution


gains = {n: speedup(n) for n in (256, 1024, 4096)}  # solution

# %% check
assert gains[256] < gains[1024] < gains[4096] < 2
print({n: f"{gain:.2f}x" for n, gain in gains.items()})
