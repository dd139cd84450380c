# %% [markdown]
# # 1. Quantize a layer and see the error
#
# A layer of a trained network: 128 x 256 weights of `digits-cnn`, from before their pruning.
# Replace every `...`; the cell below it checks your answer.

# %% [markdown] zh
# # 1. 量化一层，观察误差
#
# 所用的层取自一个训练好的网络：`digits-cnn` 中 128 x 256 个剪枝之前的权重。把每处 `...` 换成你的答案；其下的单元格会检查答案。代码中的注释和输出为英文。

# %%
import numpy as np

import sparqsim

network = sparqsim.load("digits-cnn", dense=True)
w = network.subject.weights["fc1"].astype(np.float64)
print(w.shape, f"from {w.min():.3f} to {w.max():.3f}")

# %% [markdown]
# ## A scale
#
# Symmetric integers of `b` bits are `-(2**(b-1) - 1)` to `2**(b-1) - 1`. With one scale for the whole
# tensor the largest magnitude becomes the largest integer.

# %% [markdown] zh
# ## 一个缩放因子
#
# `b` 位对称整数的范围是 `-(2**(b-1) - 1)` 到 `2**(b-1) - 1`。整个张量共用一个缩放因子时，绝对值最大的数对应最大的整数。

# %% task
bits = 4
most = 2 ** (bits - 1) - 1  # solution
scale = np.abs(w).max() / most  # solution
q = np.clip(np.rint(w / scale), -most, most)  # solution

# %% check
assert q.shape == w.shape and set(np.unique(q)) <= set(range(-7, 8)), "codes are -7 to 7"
assert np.abs(w - scale * q).max() <= 0.5001 * scale, "no value is off by more than half a step"

# %% [markdown]
# ## The error
#
# SQNR in dB: ten times the decimal logarithm of the signal's sum of squares over the error's.

# %% [markdown] zh
# ## 误差
#
# SQNR（信号与量化噪声之比）以 dB 计：信号平方和与误差平方和之比，取以 10 为底的对数，再乘以 10。


# %% task
def sqnr_db(signal, rounded):
    error = signal - rounded
    return 10 * np.log10((signal**2).sum() / (error**2).sum())  # solution


# %% check
from sparqsim.workloads.quantize import quantize

ours = quantize(w, "int4_signed")
assert abs(sqnr_db(w, scale * q) - ours.sqnr_db(w)) < 0.1, "Sparqsim finds another SQNR"
print(f"int4, one scale: {sqnr_db(w, scale * q):.1f} dB")

# %% [markdown]
# ## A bit more, a bit less
#
# How many dB does one bit more bring, on the average over 4 to 8 bits? Write it down first, then
# compute it.

# %% [markdown] zh
# ## 多一位，少一位
#
# 在 4 到 8 位之间，每多一位平均带来多少 dB？先写下你的估计，再计算。

# %% task
found = {b: quantize(w, f"int{b}_signed").sqnr_db(w) for b in range(4, 9)}
db_per_bit = (found[8] - found[4]) / 4  # solution

# %% check
assert 5 < db_per_bit < 8, "half the step is a quarter of the error's power"
print(f"{db_per_bit:.2f} dB per bit; 20 log10(2) = {20 * np.log10(2):.2f}")

# %% [markdown]
# ## One scale per output channel
#
# Row `i` of `w` makes output `i`, so that its scale can be taken out of the sum.

# %% [markdown] zh
# ## 每个输出通道一个缩放因子
#
# `w` 的第 `i` 行产生第 `i` 个输出，所以该行的缩放因子可以提到求和号之外。

# %% task
scales = np.abs(w).max(axis=1, keepdims=True) / most  # solution
rows = np.clip(np.rint(w / scales), -most, most) * scales  # solution

# %% check
assert scales.shape == (128, 1), "one scale per row"
assert sqnr_db(w, rows) > sqnr_db(w, scale * q) + 1, "rows of their own must be better"
print(f"int4, one scale per channel: {sqnr_db(w, rows):.1f} dB")

# %% [markdown]
# ## Exact is not accurate
#
# A machine computes with the codes. Its outputs equal an integer product bit by bit, and yet differ
# from those of the float layer. Run `digits-cnn/fc1` on the machine `plain` with the recipe `int8`
# and with `w4a8`; `report.output_sqnr_db` is what is left, `report.verification.status` says whether
# the integers are right.

# %% [markdown] zh
# ## 精确不等于准确
#
# 加速器用码来计算。它的输出与整数乘积逐位相等，却仍与浮点层的输出不同。在加速器 `plain` 上分别以配方 `int8` 和 `w4a8` 运行 `digits-cnn/fc1`；`report.output_sqnr_db` 说明保留了多少精度，`report.verification.status` 说明整数结果是否正确。

# %% task
eight = sparqsim.run("plain", "digits-cnn/fc1", "int8")  # solution
four = sparqsim.run("plain", "digits-cnn/fc1", "w4a8")  # solution

# %% check
assert eight.verification.status == four.verification.status == "exact"
assert eight.output_sqnr_db > four.output_sqnr_db + 10
print(f"int8 {eight.output_sqnr_db:.1f} dB, 4-bit weights {four.output_sqnr_db:.1f} dB; both exact")
