"""What an ablation study may say: numbers in, sentences out. Nothing here knows of files, records or pages.

paired.py      variants against a baseline, seed by seed: interval, p, effect size
intervals.py   where the mean difference lies: Student's t and the BCa bootstrap
sign_flip.py   whether it may be chance
images.py      which test images two variants got right: McNemar's test, other images, other seeds
verdict.py     better, worse, no difference larger than x, or cannot tell
agreement.py   whether the order of variants is the published one
resampling.py  random numbers that are the same every time
exact.py       differences whose sums have no rounding errors

How far each may be trusted with 3 to 10 seeds is measured in experiments/statistics.
"""
