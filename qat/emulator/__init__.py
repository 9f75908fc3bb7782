"""An emulated QAT device for development: a library with libqatzip's ABI, and a device process.

    python -m qat.emulator -- python -m pipeline.run --prealloc --method qatzip

The library (`libqatzip.c`, built on demand) copies a request into memory that it shares with the
device process, as libqatzip copies into DMA memory, and sleeps until the answer comes. The device
process does the work, and answers when the modelled device would have. The library says that none of
this is hardware (`ramferry_emulated`), and every result is marked `simulated`.
"""
