"""What a migration will take, before it starts: a look at the guest, a model of rounds, bands from draws.

A look of a few seconds gives a dirty curve (several samples a point) and pages of the guest's RAM, of all of
it and of what it writes. Every method compresses those pages on this host. The model walks through the rounds
as a run would, with the run's own policy, and is pure: all chance comes in by a draw, which picks anew from
what was sampled. Many draws make a band.
"""
