# %% [markdown]
# # 2. Queue depth and load imbalance on EIE
#
# EIE deals the rows of a pruned matrix to its PEs in turn. All PEs take the same activation, each with
# the non-zeros that its own rows have in that column, so that one has more to do than another. A
# queue in front of each PE lets the others go ahead. Replace every `...`.

# %% [markdown] zh
# # 2. EIE 的队列深度与负载不均
#
# EIE 把剪枝后的矩阵按行轮流分给各个 PE。所有 PE 取得同一个激活，各自处理自己的行在该列中的非零元素，因此有的 PE 事多，有的事少。每个 PE 前面的队列让其余的 PE 可以先往前走。把每处 `...` 换成你的答案；其下的单元格会检查答案。代码中的注释和输出为英文。

# %%
import numpy as np

import sparqsim

LAYER = "eie/alex-7"  # 4096 x 4096, 9 % of the weights, 35 % of the activations are not zero


def run(slots, pes=64):
    """The report of the layer; a ring of S slots holds S - 1 activations."""
    machine = sparqsim.machine("eie", pes=pes, queue_slots=slots)
    return sparqsim.run(machine, LAYER, verify=False)


report = run(slots=9)
work = np.array(report.load_balance.work_cycles)  # cycles of work of each PE
print(report.cycles, work.shape, work.min(), work.max())

# %% [markdown]
# ## Two lower bounds
#
# However deep the queues are, the run takes at least as long as its busiest PE works. If the work were
# dealt evenly, it could take the mean.

# %% [markdown] zh
# ## 两个下界
#
# 无论队列多深，运行时间都不会短于最忙的 PE 的工作时间。若工作分得完全均匀，运行时间可以等于平均值。

# %% task
busiest = work.max()  # solution
mean = work.mean()  # solution

# %% check
assert mean < busiest <= report.cycles
print(f"mean {mean:.0f} <= busiest {busiest} <= run {report.cycles}")

# %% [markdown]
# ## Load balance
#
# The paper's load balance (its Fig. 8) is the share of the PEs' cycles in which they work.

# %% [markdown] zh
# ## 负载均衡
#
# 论文所说的负载均衡（其图 8）是各 PE 的周期中真正在工作的比例。

# %% task
balance = mean / report.cycles  # solution

# %% check
assert abs(balance - report.load_balance.efficiency) < 1e-9
print(f"load balance {balance:.3f}")

# %% [markdown]
# ## How deep?
#
# Run queues that hold 1, 2, 4, ... 256 activations. How many must they hold so that the load balance
# is within 5 % of that of 256?

# %% [markdown] zh
# ## 要多深？
#
# 让队列分别容纳 1、2、4……256 个激活，各运行一次。要使负载均衡与 256 时相差不超过 5 %，队列至少要容纳多少个激活？

# %% task
depths = [1, 2, 4, 8, 16, 32, 64, 128, 256]
balances = [run(depth + 1).load_balance.efficiency for depth in depths]  # solution
enough = min(d for d, b in zip(depths, balances) if b >= 0.95 * balances[-1])  # solution

# %% check
assert len(balances) == 9 and all(a <= b + 1e-9 for a, b in zip(balances, balances[1:])), (
    "a deeper queue never makes it worse"
)
assert balances[depths.index(enough)] >= 0.95 * balances[-1] and 1 < enough < 256
print("  ".join(f"{d}: {b:.2f}" for d, b in zip(depths, balances)), f"enough: {enough}")

# %% [markdown]
# ## More PEs
#
# With more PEs each has fewer rows. What happens to the speed-up over 1 PE, and to the entries that
# only pad (`counters["padding_entries"]`)? EIE's index of 4 bits skips at most 15 zeros; where more
# lie between two non-zeros of a column, an entry is zero.

# %% [markdown] zh
# ## 更多的 PE
#
# PE 越多，每个 PE 的行越少。相对于 1 个 PE 的加速比如何变化？只起填充作用的条目（填充项，`counters["padding_entries"]`）又如何变化？EIE 的 4 位索引最多跳过 15 个零；若一列中两个非零元素之间的零更多，就要插入值为零的条目。

# %% task
pes = [1, 4, 16, 64, 256]
reports = {n: run(9, pes=n) for n in pes}
speedup = {n: reports[1].cycles / reports[n].cycles for n in pes}  # solution
padding = {n: reports[n].counters["padding_entries"] for n in pes}  # solution

# %% check
assert speedup[1] == 1 and all(speedup[n] < 1.3 * n for n in pes)
assert padding[1] > padding[64], "shorter columns have shorter gaps"
print("  ".join(f"{n}: {speedup[n]:.1f}x" for n in pes), padding)

# %% [markdown]
# ## Why is 64 PEs not 64 times one?
#
# Split the speed-up of 64 PEs over 1 in two factors: less padding (entries of 1 PE over entries of 64
# PEs) and the rest, which is balance and waiting.

# %% [markdown] zh
# ## 为什么 64 个 PE 不是 1 个的 64 倍？
#
# 把 64 个 PE 相对于 1 个 PE 的加速比分成两个因子：填充的减少（1 个 PE 的条目数除以 64 个 PE 的条目数），以及其余部分，即负载均衡与等待。

# %% task
less_padding = reports[1].counters["entries"] / reports[64].counters["entries"]  # solution
the_rest = speedup[64] / 64 / less_padding  # solution

# %% check
assert less_padding > 1 and 0.5 < the_rest < 1
assert abs(less_padding * the_rest * 64 - speedup[64]) < 1e-9
print(f"64 x {less_padding:.2f} x {the_rest:.2f} = {speedup[64]:.1f}")
