# %% [markdown]
# # 3. Precision on Bit Fusion, formats on ANT and OliVe
#
# Fewer bits are faster twice: the array composes more products, and less comes from DRAM. What is lost
# is accuracy, and other types of four bits win some of it back. Replace every `...`.

# %% [markdown] zh
# # 3. Bit Fusion 的精度，ANT 与 OliVe 的数值格式
#
# 位数减少，速度有两重收益：阵列能组合出更多乘积，来自 DRAM 的数据也更少。损失的是准确率，而其他 4 位类型能挽回一部分。把每处 `...` 换成你的答案；其下的单元格会检查答案。代码中的注释和输出为英文。

# %%
import numpy as np

import sparqsim

WORK = "gemm:256x1024x512"  # 256 rows by a matrix of 1024 x 512


def run(recipe):
    """The product on Bit Fusion: 16 x 32 Fusion Units, 12 GB/s."""
    return sparqsim.run("bitfusion", WORK, recipe, verify=False)


# %% [markdown]
# ## What the array could do
#
# A Fusion Unit makes one product of 8 x 8 bits in a cycle, two of 8 x 4, four of 4 x 4; there are 512.

# %% [markdown] zh
# ## 阵列能做多少
#
# 一个融合单元（Fusion Unit）每周期完成一个 8 x 8 位乘积，或两个 8 x 4 位乘积，或四个 4 x 4 位乘积；共有 512 个单元。

# %% task
macs = 256 * 1024 * 512  # solution
least = {"int8": macs // 512, "w4a8": macs // 1024, "int4": macs // 2048}  # solution

# %% check
cycles = {recipe: run(recipe).cycles for recipe in least}
assert least["int8"] == 262144 and all(cycles[r] >= least[r] for r in least)
print({recipe: f"{cycles[recipe]} of at least {least[recipe]}" for recipe in least})

# %% [markdown]
# ## What DRAM allows
#
# Inputs and weights come once at least, outputs leave at the width of the inputs; the bus moves 192
# bits per cycle. Which of the two bounds is the larger, for each recipe?

# %% [markdown] zh
# ## DRAM 允许多少
#
# 输入和权重至少各读入一次，输出以输入的位宽写出；总线每周期传送 192 位。对每个配方，两个下界中哪个更大？


# %% task
def dram_cycles(input_bits, weight_bits):
    bits = 256 * 1024 * input_bits + 1024 * 512 * weight_bits + 256 * 512 * input_bits
    return bits / 192  # solution


bound = {
    "int8": max(least["int8"], dram_cycles(8, 8)),
    "w4a8": max(least["w4a8"], dram_cycles(8, 4)),
    "int4": max(least["int4"], dram_cycles(4, 4)),
}  # solution

# %% check
for recipe in bound:
    assert 0.95 * bound[recipe] <= cycles[recipe] <= 2 * bound[recipe], recipe
print({recipe: f"{cycles[recipe] / bound[recipe]:.2f} of the bound" for recipe in bound})

# %% [markdown]
# ## A type for the tensor
#
# Int, flint and power-of-two spend sixteen codes in different ways. For each of the two tensors below
# find the 4-bit type with the highest SQNR among `int4_signed`, `flint4_signed`, `pot4_signed` when
# the scale is the best of `fit(..., method="mse")`.

# %% [markdown] zh
# ## 为张量选类型
#
# int、flint 和 2 的幂以不同的方式使用十六个码。对下面两个张量，缩放因子取 `fit(..., method="mse")` 的最优值，在 `int4_signed`、`flint4_signed`、`pot4_signed` 中找出 SQNR 最高的 4 位类型。

# %%
from sparqsim.workloads.quantize import fit

rng = np.random.default_rng(0)
tensors = {"flat": rng.uniform(-1, 1, 4096), "tailed": rng.standard_t(3, 4096)}
TYPES = ("int4_signed", "flint4_signed", "pot4_signed")


# %% task
def best_type(x):
    found = {name: fit(x, name, method="mse").quantize(x).sqnr_db(x) for name in TYPES}
    return max(found, key=found.get)  # solution


best = {name: best_type(x) for name, x in tensors.items()}  # solution

# %% check
from sparqsim.workloads.adaptive import fit_ant

assert best["flat"] == "int4_signed" and best["tailed"] != "int4_signed"
print(best, "ANT chooses", {name: fit_ant(x).format.name for name, x in tensors.items()})

# %% [markdown]
# ## The same layer on three machines
#
# Run `digits-cnn/fc1` with 4 bits on Bit Fusion (`int4`), ANT (`ant4`) and OliVe (`olive4`). Cycles
# of ANT and OliVe are equal here, for OliVe's array is taken to be ANT's; the error is not. The layer
# is pruned: 94 % of its weights are zero, which every type here holds exactly.

# %% [markdown] zh
# ## 同一层，三个加速器
#
# 以 4 位在 Bit Fusion（`int4`）、ANT（`ant4`）和 OliVe（`olive4`）上运行 `digits-cnn/fc1`。这里 ANT 与 OliVe 的周期数相等，因为假定 OliVe 的阵列与 ANT 相同；误差则不相等。该层经过剪枝：94 % 的权重为零，这里的每种类型都能精确表示零。

# %% task
reports = {
    "bitfusion": sparqsim.run("bitfusion", "digits-cnn/fc1", "int4"),
    "ant": sparqsim.run("ant", "digits-cnn/fc1", "ant4"),
    "olive": sparqsim.run("olive", "digits-cnn/fc1", "olive4"),
}  # solution
noise = {name: report.output_sqnr_db for name, report in reports.items()}  # solution

# %% check
assert all(report.verification.status == "exact" for report in reports.values())
assert max(noise, key=noise.get) == "ant"
print({name: f"{db:.1f} dB, {reports[name].cycles} cycles" for name, db in noise.items()})

# %% [markdown]
# ## Where OliVe wins
#
# One value in 500 is fifteen times as large. Quantize `x` per tensor with plain int4, with ANT
# (`fit_ant`) and with OliVe (`fit_olive`).

# %% [markdown] zh
# ## OliVe 的优势所在
#
# 每 500 个数中有一个放大到 15 倍。整个张量共用一个缩放因子，分别用普通的 int4、ANT（`fit_ant`）和 OliVe（`fit_olive`）量化 `x`。

# %%
from sparqsim.workloads.adaptive import fit_olive
from sparqsim.workloads.quantize import quantize

x = np.random.default_rng(1).normal(size=10_000)
x[::500] *= 15

# %% task
with_outliers = {
    "int4": quantize(x, "int4_signed").sqnr_db(x),
    "ant": fit_ant(x).quantize(x).sqnr_db(x),
    "olive": fit_olive(x).quantize(x).sqnr_db(x),
}  # solution

# %% check
assert with_outliers["int4"] < with_outliers["ant"] < with_outliers["olive"]
print({name: f"{db:.1f} dB" for name, db in with_outliers.items()})
