"""What the array machines have in common: operands, datapath, energies, and the machine itself."""
