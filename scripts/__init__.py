"""What a user runs: the command line, scenarios, sweeps and validations."""
