"""Emptying hosts: which VM goes where, when, by which method, and how long all of it takes.

`plan_file` reads the question, `work` makes each VM's choices of method from the forecast's model, `fabric`
and `network` are the links that they share, `simulation` plays a schedule through, `planner` chooses one,
`baselines` are what others would do, `bound` says what nobody can beat, `execution` carries a plan out.
"""
