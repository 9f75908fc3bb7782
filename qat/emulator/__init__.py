"""A QAT device to develop against: a library with libqatzip's ABI, and a process that is the device.

    python -m qat.emulator -- python -m pipeline.run --prealloc --method qatzip

The library (`libqatzip.c`, built on demand) copies a request into memory it shares with the device
process, as libqatzip copies into DMA memory, and sleeps until the answer comes; the device process
does the work and answers when the modelled device would have. Nothing here is hardware: the library
says so (`ramferry_emulated`), and whatever ran on it is marked `simulated`.
"""
