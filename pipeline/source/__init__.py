"""The send side of every transport: channels claim pages, snapshot, compress and enqueue them."""
