# %% [markdown]
# # 2. Queue depth and load imbalance on EIE
#
# EIE deals the rows of a pruned matrix to its PEs in turn. All PEs take the same activation, each with
# the non-zeros that its own rows have in that column, so that one has more to do than another. A
# queue in front of each PE lets the others go ahead. Replace every `...`.

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

# %% task
less_padding = reports[1].counters["entries"] / reports[64].counters["entries"]  # solution
the_rest = speedup[64] / 64 / less_padding  # solution

# %% check
assert less_padding > 1 and 0.5 < the_rest < 1
assert abs(less_padding * the_rest * 64 - speedup[64]) < 1e-9
print(f"64 x {less_padding:.2f} x {the_rest:.2f} = {speedup[64]:.1f}")
