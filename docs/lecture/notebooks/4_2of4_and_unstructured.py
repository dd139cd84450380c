# %% [markdown]
# # 4. 2:4 against unstructured sparsity on one real layer
#
# The layer: 128 x 64 weights of the trained `digits-mlp`, before any pruning. Both patterns keep half
# of it. Replace every `...`.

# %% [markdown] zh
# # 4. 在一个真实层上比较 2:4 与非结构化稀疏
#
# 所用的层：训练好的 `digits-mlp` 中 128 x 64 个未经任何剪枝的权重。两种模式都保留一半。把每处 `...` 换成你的答案；其下的单元格会检查答案。代码中的注释和输出为英文。

# %%
import numpy as np

import sparqsim

network = sparqsim.load("digits-mlp", dense=True)
w = network.subject.weights["fc1"].astype(np.float64)

# %% [markdown]
# ## The larger half
#
# Unstructured: of all weights those with the largest magnitude stay, wherever they are.

# %% [markdown] zh
# ## 较大的一半
#
# 非结构化：在所有权重中保留绝对值最大的，不论它们在哪里。

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

# %% [markdown] zh
# ## 四选二
#
# 沿输入方向（`w` 的一行），每四个相邻权重中保留绝对值最大的两个。

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

# %% [markdown] zh
# ## 各保留多少
#
# 保留的平方和所占的比例。为什么 2:4 保留的绝不会更多？


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

# %% [markdown] zh
# ## 各占多少位
#
# 数值为 8 位时，稠密矩阵的每个权重平均占多少位：2:4 存储每个保留的值及其在四个位置中的序号；非结构化张量为每个位置存储一位（位图），再加上保留的值。

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

# %% [markdown] zh
# ## 网络还能答对多少
#
# `compress` 按配方（`2:4`、`unstructured50`）对网络的每一层剪枝，不再训练，然后在测试图像上运行。

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

# %% [markdown] zh
# ## 各有多少收益
#
# 稀疏张量核心对 2:4 的计算速率加倍，而 DRAM、启动和输出的开销不变。EIE 和 SNAP 则接受任意模式。在 `sparse-tensor-core` 上分别以 `fp16` 和 `2:4` 运行 n x n x n 的矩阵乘，不作验证，求每个 n 的加速比。


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
