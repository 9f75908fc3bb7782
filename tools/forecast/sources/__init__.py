"""Where a guest's figures come from: one file a source."""
