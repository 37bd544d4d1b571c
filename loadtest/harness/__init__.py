"""Side-by-side measurement: cases, the programs they run, and what is made of the samples.

`case` says what a case is, `runner` runs them in turns, `machine` reads /proc and pins processes, `stats` turns samples
into medians and ratios (or a refusal), `report` and `plots` write them down. The cases themselves: `http_*`, `pg_*`, `whole_*`.
"""
