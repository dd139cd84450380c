"""Labs with a sheet for every student, and what is judged: numbers, a machine, a contest."""
