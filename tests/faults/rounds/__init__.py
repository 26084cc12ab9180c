"""Rounds of faults at random moments in every stage, drawn with a seed: `make faults ROUNDS=60 SEED=0`.

Each round damages one run, looks at what it leaves, runs the same command again, and compares the result with that of a
run that nothing disturbed.
"""
